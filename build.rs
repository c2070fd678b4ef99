//! Links the program so that it finds libtorch at run time without any environment variable.
//!
//! `--as-needed` keeps only `libtorch_cpu.so` and `libc10.so` in the binary (so that one binary
//! serves machines with and without CUDA), and `--allow-shlib-undefined` lets it link where the
//! CUDA run-time libraries that `libtorch_cpu.so` names are reached by its own run path.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_USE_PYTORCH");
    // A path that does not exist would rebuild everything each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for flag in ["--as-needed", "--allow-shlib-undefined"] {
            println!("cargo:rustc-link-arg=-Wl,{flag}");
        }
    }
    // torch-sys names the folder that it linked against.
    let lib = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from);
    if let Some(lib) = lib {
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
        println!("cargo:rustc-env=SYNECHO_LIBTORCH_LIB={}", lib.display());
    } else {
        println!("cargo:rustc-env=SYNECHO_LIBTORCH_LIB=");
    }
    println!("cargo:rustc-env=SYNECHO_COMMIT={}", git(&["rev-parse", "--short=12", "HEAD"]));
}

/// What git prints; empty where it cannot be asked.
fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success());
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
