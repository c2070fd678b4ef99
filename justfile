# Everything a developer does. Each recipe works without `just` too: it is a line or two of shell.

hdf5 := `if pkg-config --exists hdf5 2>/dev/null || command -v h5cc >/dev/null; then echo "--features hdf5"; fi`
camus := env("CAMUS_DIR", "data/camus")

# Lists the recipes
_list:
    @{{ just_executable() }} --list --unsorted

# Puts libtorch into .libtorch/ (`just setup cuda`: the CUDA libraries as well)
setup level="cpu":
    @setup/libtorch.py {{ level }}

# Sets up, then runs the main job on the built-in phantom
quickstart: setup
    cargo run --release -- run experiments/quickstart.toml

# Sets up, then runs the tests (with the HDF5 import where its C library is there)
test: setup
    cargo test --release {{ hdf5 }}
    python3 -m unittest setup/test_libtorch.py

build: setup
    cargo build --release {{ hdf5 }}

fmt:
    cargo fmt

# Formatting and clippy, as CI has them
lint: setup
    cargo fmt --check
    cargo clippy --release --all-targets {{ hdf5 }} -- -D warnings

# The crate's pages, in target/doc
docs: setup
    cargo doc --release --no-deps {{ hdf5 }}

# Against the same in Python: epochs of the tasks and FID from files (`just camus=DIR bench`), steps of diffusion models, Frechet distances (`just bench --only diffusion`, `--only frechet`)
bench *arguments: setup
    cargo build --release --bin synecho --example bench_epoch --example bench_diffusion --example bench_frechet
    test -e target/bench-python || python3 -m venv target/bench-python
    target/bench-python/bin/python -m pip install --quiet --requirement bench/requirements.txt
    target/bench-python/bin/python bench/compare.py --data {{ camus }} {{ arguments }}

# Makes the golden fixtures again with the reference's own packages, and shows what changed
golden:
    test -e target/golden-python || python3 -m venv target/golden-python
    target/golden-python/bin/python -m pip install --quiet --requirement tests/golden/requirements.txt
    for script in tests/golden/make_*.py; do target/golden-python/bin/python "$script" || exit 1; done
    git diff --stat -- tests
