//! Losses of the same small diffusion model trained in f32 and in bf16, side by side: bench/precision.csv
//! and bench/precision.svg.
//!
//!     cargo run --release --example precision_curves

use std::{fmt::Write, path::Path};

use synecho::{
    Error, Result, data,
    error::AtPath,
    experiment::{Generator, GeneratorNetworks, GeneratorPreset, GeneratorTraining, Phantom},
    progress::{Progress, TrainingDisplay},
    results::{self, CurvePoint},
    samples::Samples,
    train::{self, diffusion::GeneratorHooks},
    vocabulary::{Mode, Precision, Source, Split},
};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// One model for all classes, 64 px, on the phantom.
fn settings(precision: Precision) -> Generator {
    let preset = Generator::preset(GeneratorPreset::Cpu, Mode::Unconditional);
    Generator {
        image_size: 64,
        networks: GeneratorNetworks { channels: vec![32, 48, 64], ..preset.networks },
        training: GeneratorTraining {
            precision,
            steps: 200,
            batch_size: 8,
            warmup_steps: 20,
            validate_every: 25,
            grid_every: 0,
            ema: 0.0, // the validation loss of the weights as they are
            ..preset.training
        },
        ..preset
    }
}

/// (step, loss) of the training or validation images.
type Curve = Vec<(f64, f64)>;

fn curve(points: &[CurvePoint], split: &str) -> Curve {
    let of_split = points.iter().filter(|p| p.split == split && p.metric == "loss");
    of_split.map(|p| (p.step as f64, p.value)).collect()
}

/// The curves as lines: colour by precision, dashed for the validation images.
fn svg(curves: &[(String, &str, &str, Curve)]) -> String {
    let points = || curves.iter().flat_map(|(.., curve)| curve);
    let last = points().map(|p| p.0).fold(0.0, f64::max);
    let top = points().map(|p| p.1).fold(0.0, f64::max) * 1.05;
    let at = |&(step, loss): &(f64, f64)| (50.0 + 330.0 * step / last, 210.0 - 190.0 * loss / top);
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 400 250\" width=\"400\" height=\"250\" \
         font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"400\" height=\"250\" fill=\"white\"/>\n\
         <path d=\"M50 20V210H380\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"215\" y=\"244\" text-anchor=\"middle\">step</text>\n\
         <text x=\"14\" y=\"115\" text-anchor=\"middle\" transform=\"rotate(-90 14 115)\">loss</text>\n",
    );
    for part in 0..=4 {
        let (step, loss) = (last * f64::from(part) / 4.0, top * f64::from(part) / 4.0);
        let ((x, _), (_, y)) = (at(&(step, 0.0)), at(&(0.0, loss)));
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"226\" text-anchor=\"middle\">{step:.0}</text>");
        let _ = writeln!(out, "<text x=\"44\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>", y + 3.0);
    }
    for (i, (name, color, dash, curve)) in curves.iter().enumerate() {
        let line: Vec<String> = curve.iter().map(|p| format!("{:.1},{:.1}", at(p).0, at(p).1)).collect();
        let style =
            format!("fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" stroke-dasharray=\"{dash}\"");
        let y = 28 + 14 * i;
        let _ = writeln!(out, "<polyline points=\"{}\" {style}/>", line.join(" "));
        let _ =
            writeln!(out, "<path d=\"M250 {y}H280\" {style}/><text x=\"286\" y=\"{}\">{name}</text>", y + 3);
    }
    out + "</svg>\n"
}

fn main() -> Result<()> {
    synecho::memory::keep();
    let work = tempfile::tempdir().map_err(|e| Error::failure(format!("no temporary folder: {e}")))?;
    let (work, quiet) = (work.path(), |_, _| {});
    let size = settings(Precision::F32).image_size;
    data::phantom::write(&Phantom { patients: 40, size, seed: 0 }, &work.join("phantom"), &quiet)?;
    let imported = data::import::import(Source::Camus, &work.join("phantom"), &work.join("data"), &quiet)?;
    let prepared = data::prepare::prepare(&imported.manifest, size, &work.join("prepared"), &quiet)?;
    let read = |split| Samples::read(&prepared, split, None, None);
    let data = train::TaskData { train: read(Split::Train)?, val: read(Split::Val)? };

    let mut curves = Vec::new();
    for (precision, color) in PRECISIONS.into_iter().zip(["#0072b2", "#d55e00"]) {
        let out = work.join(precision.as_str());
        let progress = Progress::new(false);
        let display = TrainingDisplay::new(&progress, precision.as_str());
        let context = train::TrainingContext {
            device: tch::Device::Cpu,
            out: &out,
            checkpoints: &out.join("checkpoints"),
            checkpoint_every: f64::INFINITY,
            start: None,
            observer: &display,
        };
        let hooks = GeneratorHooks { grid: &|_, _, _| Ok(()), quality: &|_, _| Ok(Vec::new()) };
        train::diffusion::diffusion(&settings(precision), None, &data, &hooks, &context)?;
        let file = out.join(train::CURVES);
        let points: Vec<CurvePoint> = results::read_csv(&file)?;
        for (split, dash) in [("train", "none"), ("val", "4 2")] {
            curves.push((format!("{} {split}", precision.as_str()), color, dash, curve(&points, split)));
        }
    }
    let mut csv = String::from("step");
    curves.iter().for_each(|(name, ..)| csv += &format!(",{name}"));
    for (i, (step, _)) in curves[0].3.iter().enumerate() {
        let _ = write!(csv, "\n{step}");
        for (.., curve) in &curves {
            let _ = write!(csv, ",{:.5}", curve.get(i).map_or(f64::NAN, |p| p.1));
        }
    }
    let folder = Path::new("bench");
    for (name, text) in [("precision.csv", csv + "\n"), ("precision.svg", svg(&curves))] {
        let file = folder.join(name);
        std::fs::write(&file, text).at_path(&file, "cannot write")?;
    }
    Ok(())
}
