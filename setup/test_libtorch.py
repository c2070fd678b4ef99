"""The set-up against small made-up wheels: nothing is downloaded, no real library is loaded."""

import contextlib
import hashlib
import importlib.util
import io
import os
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

spec = importlib.util.spec_from_file_location("libtorch", Path(__file__).with_name("libtorch.py"))
libtorch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(libtorch)


def files_of(name, level):
    """A wheel's worth of files: what is unpacked at this level, and one that is not."""
    wanted = [pattern for part in libtorch.levels(level) for pattern in libtorch.UNPACKED[part].get(name, [])]
    files = {pattern: b"library" for pattern in wanted if not pattern.endswith("/*")}
    files["nvidia/cu13/lib/unwanted.so"] = b"unwanted"
    files[f"{name}.dist-info/licenses/LICENSE"] = b"terms"
    if name == "torch":
        files["torch/version.py"] = b"__version__ = '%s+cu130'\n" % libtorch.VERSION.encode()
        for header in ("ATen/ATen.h", "torch/csrc/api/include/torch/torch.h"):
            files["torch/include/" + header] = b"header"
    return files


@mock.patch.object(libtorch, "loads", lambda torch, level: None)
@mock.patch.object(libtorch, "pytorch", lambda: None)
@mock.patch.object(libtorch, "downloadable", lambda: None)
@mock.patch.object(libtorch, "UNPACKED_BYTES", {"cpu": 0, "cuda": 0})
class SetUp(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.home, self.cache = self.root / "home", self.root / "cache"
        self.cache.mkdir()
        lines = {level: [] for level in libtorch.UNPACKED}
        for name in sorted(libtorch.wheels("cuda")):
            wheel = self.cache / f"{name.replace('-', '_')}-1-py3-none-any.whl"
            with zipfile.ZipFile(wheel, "w") as archive:
                for path, content in files_of(name, "cuda").items():
                    archive.writestr(path, content)
            level = "cpu" if name in libtorch.UNPACKED["cpu"] else "cuda"
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines[level].append(f"{name}==1 --hash=sha256:{digest}  # {wheel.stat().st_size}\n")
        (self.root / "libtorch-cpu.txt").write_text("".join(lines["cpu"]))
        (self.root / "libtorch-cuda.txt").write_text("-r libtorch-cpu.txt\n" + "".join(lines["cuda"]))
        environment = {"SYNECHO_LIBTORCH_CACHE": str(self.cache)}
        for patch in (
            mock.patch.object(libtorch, "HOME", self.home),
            mock.patch.object(libtorch, "SETUP", self.root),
            mock.patch.dict(os.environ, environment),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop("LIBTORCH", None)

    def run_setup(self, level="cpu"):
        """(exit code, what it printed)"""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = libtorch.main([level])
        return code, out.getvalue()

    def installed(self):
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()}

    def test_the_cpu_gets_its_files_and_cuda_adds_to_them(self):
        code, out = self.run_setup()
        self.assertEqual(code, 0, out)
        self.assertIn("torch/lib/libtorch_cpu.so", self.installed())
        self.assertNotIn("torch/lib/libtorch_cuda.so", self.installed())
        self.assertNotIn("nvidia/cu13/lib/unwanted.so", self.installed())
        self.assertIn("torch.dist-info/licenses/LICENSE", self.installed())
        self.assertEqual((self.home / "torch/build-version").read_text().strip(), libtorch.VERSION)

        before = (self.home / "torch/lib/libtorch_cpu.so").stat().st_ino
        code, out = self.run_setup("cuda")
        self.assertEqual(code, 0, out)
        self.assertIn("torch/lib/libtorch_cuda.so", self.installed())
        self.assertEqual((self.home / "torch/lib/libtorch_cpu.so").stat().st_ino, before, "left alone")

    def test_the_second_time_nothing_is_done(self):
        self.run_setup()
        with mock.patch.object(libtorch, "fetch", side_effect=AssertionError("fetched again")):
            code, out = self.run_setup()
        self.assertEqual(code, 0)
        self.assertIn("already there", out)

    def test_a_lost_file_is_brought_back(self):
        self.run_setup()
        (self.home / "nvidia/cu13/lib/libcupti.so.13").unlink()
        self.assertEqual(self.run_setup()[0], 0)
        self.assertIn("nvidia/cu13/lib/libcupti.so.13", self.installed())

    def test_an_older_libtorch_is_replaced(self):
        self.run_setup()
        (self.home / "torch/build-version").write_text("2.12.0\n")
        self.assertEqual(self.run_setup()[0], 0)
        self.assertEqual((self.home / "torch/build-version").read_text().strip(), libtorch.VERSION)

    def test_a_wheel_with_another_hash_is_not_taken_and_nothing_is_left(self):
        wheel = next(self.cache.glob("nvidia_cuda_cupti-*.whl"))
        wheel.write_bytes(wheel.read_bytes() + b"x")
        refused = libtorch.Problem("no", "help")
        with mock.patch.object(libtorch, "download", side_effect=refused) as download:
            code, out = self.run_setup()
        self.assertEqual(code, 1)
        self.assertEqual(download.call_count, 1)
        self.assertEqual(self.installed(), {".lock"})

    def test_what_a_killed_set_up_left_is_cleared(self):
        (self.home / ".part-old").mkdir(parents=True)
        self.run_setup()
        self.assertFalse(list(self.home.glob(".part-*")))

    def test_the_users_own_libtorch_comes_first_and_a_wrong_one_ends_it(self):
        self.run_setup()
        own = self.root / "own"
        (self.home / "torch").rename(own)
        os.environ["LIBTORCH"] = str(own)
        code, out = self.run_setup()
        self.assertEqual(code, 0, out)
        self.assertEqual((self.home / "torch").resolve(), own.resolve())
        # It has no CUDA libraries, and cargo would go on using it.
        code, out = self.run_setup("cuda")
        self.assertEqual(code, 1)
        self.assertIn("libtorch_cuda", out)
        (own / "build-version").write_text("2.12.0+cpu\n")
        code, out = self.run_setup()
        self.assertEqual(code, 1)
        self.assertIn("2.12.0", out)
        self.assertIn("unset it", out)

    def test_pytorch_is_linked_where_it_fits_and_passed_over_where_not(self):
        self.run_setup()
        own = self.root / "site-packages" / "torch"
        own.parent.mkdir()
        (self.home / "torch").rename(own)
        with mock.patch.object(libtorch, "pytorch", lambda: own):
            code, out = self.run_setup()
            self.assertEqual(code, 0, out)
            self.assertTrue((self.home / "torch").is_symlink())
            code, out = self.run_setup("cuda")  # lacks CUDA: downloaded instead
        self.assertEqual(code, 0, out)
        self.assertIn("passing over", out)
        self.assertFalse((self.home / "torch").is_symlink())
        self.assertIn("torch/lib/libtorch_cuda.so", self.installed())
        self.assertFalse((own / "lib/libtorch_cuda.so").exists(), "the user's own is never written to")

    def test_pips_complaints_get_their_remedy(self):
        with contextlib.redirect_stderr(io.StringIO()):
            for said, word in (
                ("/usr/bin/python3: No module named pip", "ensurepip"),
                ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "pinned"),
                ("WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution", "HTTPS_PROXY"),
                ("ERROR: Could not install: [Errno 28] No space left on device", "disk"),
                ("something new", "pip says"),
            ):
                self.assertIn(word, libtorch.pip_problem("torch", said).remedy)


class Pins(unittest.TestCase):
    def test_every_wheel_is_pinned_once_by_version_hash_and_size(self):
        for level in libtorch.UNPACKED:
            pinned = list(libtorch.requirements(f"libtorch-{level}.txt"))
            self.assertEqual({name for name, *_ in pinned}, libtorch.wheels(level))
            self.assertEqual(len(pinned), len(libtorch.wheels(level)))
            for _, text, digest, size in pinned:
                self.assertRegex(text, r"^[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}$")
                self.assertEqual(len(digest), 64)
                self.assertGreater(size, 0)


if __name__ == "__main__":
    unittest.main()
