//! Seconds for a Frechet distance from features, for `just bench` (bench/reference_frechet.py is the same with
//! SciPy's matrix root). Prints one JSON document.
//!
//! Both read the same features: tensors `real` and `synthetic` (n, d), f32, of a safetensors file, which
//! bench/reference_frechet.py writes with `--write`.

use std::{path::PathBuf, time::Instant};

use clap::Parser;
use serde_json::json;
use synecho::{Error, Result, measure::frechet::frechet, nn::tensor_file::TensorFile};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    features: PathBuf,
    /// Distances to time; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

fn main() -> Result<()> {
    synecho::memory::keep(); // as the program does
    let arguments = Arguments::parse();
    let file = TensorFile::open(&arguments.features)?;
    let tensor = |name: &str| {
        let entry = file.entries().iter().find(|entry| entry.name == name);
        let missing = || Error::input(format!("no tensor {name}")).at(&arguments.features);
        file.read(entry.ok_or_else(missing)?)
    };
    let (real, synthetic) = (tensor("real")?, tensor("synthetic")?);
    // The first is not timed.
    let mut found = frechet(&real, &synthetic)?;
    let mut seconds = Vec::new();
    for _ in 0..arguments.runs {
        let start = Instant::now();
        found = frechet(&real, &synthetic)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "task": "frechet",
            "images": found.n_real.unwrap_or(0) + found.n_synthetic.unwrap_or(0),
            "d": found.d,
            "value": found.value,
            "seconds": sorted.get(sorted.len() / 2),
            "all_seconds": seconds,
            "threads": tch::get_num_threads(),
        })
    );
    Ok(())
}
