# Everything a developer does. Each recipe works without `just` too: it is a line or two of shell.

hdf5 := `if pkg-config --exists hdf5 2>/dev/null || command -v h5cc >/dev/null; then echo "--features hdf5"; fi`
camus := env("CAMUS_DIR", "data/camus")

# Lists the recipes
_list:
    @{{ just_executable() }} --list --unsorted

# Puts libtorch into .libtorch/ (`just setup cuda` adds the CUDA libraries)
setup level="cpu":
    @setup/libtorch.py {{ level }}

# Sets up, then runs the main job on the built-in phantom
quickstart: setup
    cargo run --release -- run experiments/quickstart.toml

# Sets up, then runs the tests (with the HDF5 import where its C library is there)
test: setup
    cargo test --release {{ hdf5 }}
    python3 -m unittest setup/test_libtorch.py
    python3 tests/prose.py --self-test
    python3 tests/prose.py

# Draws the page of the published quickstart and checks its layout in headless Chromium at two widths
page: build
    target/release/synecho report --from reports/quickstart --out target/page
    python3 tests/page/test_check_page.py
    python3 tests/page/check_page.py target/page/index.html

# Publishes the report of a finished run: redraws out/NAME as reports/NAME
publish name: build
    target/release/synecho report --from out/{{ name }} --out reports/{{ name }} --formats svg

# Builds the program
build: setup
    cargo build --release {{ hdf5 }}

# Formats the code
fmt:
    cargo fmt

# Checks formatting and runs clippy, as CI does
lint: setup
    cargo fmt --check
    cargo clippy --release --all-targets {{ hdf5 }} -- -D warnings

# Builds the crate's documentation in target/doc
docs: setup
    cargo doc --release --no-deps {{ hdf5 }}

# Times Synecho against the same work in Python (`just camus=DIR bench`, `just bench --only diffusion`; bench/README.md)
bench *arguments: setup
    cargo build --release --bin synecho --example bench_epoch --example bench_diffusion --example bench_frechet
    test -e target/bench-python || python3 -m venv target/bench-python
    target/bench-python/bin/python -m pip install --quiet --requirement bench/requirements.txt
    target/bench-python/bin/python bench/compare.py --data {{ camus }} {{ arguments }}

# Recomputes the golden fixtures with the reference's own packages, and shows what changed
golden:
    test -e target/golden-python || python3 -m venv target/golden-python
    target/golden-python/bin/python -m pip install --quiet --requirement tests/golden/requirements.txt
    for script in tests/golden/make_*.py; do target/golden-python/bin/python "$script" || exit 1; done
    git diff --stat -- tests
