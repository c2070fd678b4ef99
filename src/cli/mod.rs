//! The command line: what can be asked, and with which words. No logic.

mod commands;
mod distances;
mod output;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};

use crate::{
    execute::CHECKPOINT_EVERY,
    vocabulary::{FigureFormat, NoiseLevels, Precision, Sampler, Source, Split},
};

/// Do synthetic echocardiograms help? Trains, measures and reports from one TOML spec.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Examples:\n  synecho run experiments/quickstart.toml            everything, on the built-in phantom\n  synecho plan experiments/camus-real.toml           what would run, and what is there already\n  synecho data import --from camus CAMUS --to data/camus\n\nResults go to standard output, progress to standard error. Exit codes: 0 done, 1 a stage failed, 2 the request was wrong."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry out a spec: what the store has is taken, the rest is done, then the report is drawn
    Run {
        #[command(flatten)]
        spec: SpecArgs,
        /// cpu, cuda or cuda:N
        #[arg(long, default_value = "cpu", value_name = "DEVICE")]
        device: String,
        /// Processes that share the work, each with its part of the cores. [default: on the CPU one for each core, at most 4; with CUDA 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: Option<u16>,
        /// Threads of each process (default: all cores, shared out over the jobs). Results are the same to the last bit where this number is the same
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        threads: Option<u16>,
        /// Stop at the first stage that fails
        #[arg(long)]
        fail_fast: bool,
        /// Folder for reports. The report is drawn in a folder of it that has the experiment's name
        #[arg(long, default_value = OUT, value_name = "DIR")]
        reports: PathBuf,
        /// No progress on standard error
        #[arg(long)]
        quiet: bool,
        /// Seconds between two checkpoints of a training, at least; 0: after every epoch.
        #[arg(long, hide = true, value_name = "SECONDS", default_value_t = CHECKPOINT_EVERY)]
        checkpoint_every: f64,
        /// This process is one of several that share the work: the report is the first one's.
        #[arg(long, hide = true)]
        helper: bool,
    },
    /// What would run, what the store has already, and about how long it would take
    Plan {
        #[command(flatten)]
        spec: SpecArgs,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// What is running, done, failed
    Status {
        /// The spec; without it the whole store is counted
        spec: Option<PathBuf>,
        #[command(flatten)]
        set: SetArgs,
        #[command(flatten)]
        store: StoreArgs,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Tell where a report's numbers come from: spec, seeds, n, and the stages behind them
    #[command(
        after_help = "Examples:\n  synecho explain reports/quickstart                           lists its cells\n  synecho explain reports/quickstart \"segmentation/real\"\n  synecho explain reports/quickstart \"segmentation/real/monai-unet/0\"\n\nIt reads the report alone (stages.json, measurements.csv.gz, and tables/ but for training and published): no store is needed."
    )]
    Explain {
        /// A report's folder
        report: PathBuf,
        /// TASK/ARM, with /MODEL and /SEED if you like; of generators generation/NAME. Left out: what there is
        cell: Option<String>,
    },
    /// Redraw a report, from the store or from the report's own data files. Trains nothing
    #[command(
        after_help = "Examples:\n  synecho report experiments/quickstart.toml                 from the store, into out/quickstart\n  synecho report --from out/quickstart                       from the report's own data files, in place\n  synecho report --from out/quickstart --out site --formats svg,pdf"
    )]
    Report(ReportArgs),
    /// What this machine offers: libtorch, CUDA, threads, precision, store
    Doctor {
        #[command(flatten)]
        store: StoreArgs,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Make images from a diffusers folder: unconditional, text, text + segmentation
    #[command(
        after_help = "Examples:\n  synecho sample --pipeline ddpm-camus --count 16 --out out\n  synecho sample --pipeline sd-v1-5 --prompt \"an ultrasound image of heart in two-chamber view\" --scheduler unipc --steps 40 --out out\n  synecho sample --pipeline sd-v1-5 --controlnet echo-controlnet --prompt \"...\" --control-mask mask.png --out out\n\nThe folder is one that diffusers' save_pretrained wrote, with safetensors weights. Every image has a seed of its own: --seed N --count 1 makes image N - S of a run with --seed S again. OUT gets PNG files and manifest.csv."
    )]
    Sample(Box<SampleArgs>),
    /// Bring data sets into shape, check them, draw the phantom
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure folders of images or masks
    #[command(subcommand)]
    Measure(MeasureCommand),
}

/// Where reports are drawn, each in a folder of its experiment's name.
const OUT: &str = "out";

#[derive(Debug, Args)]
struct ReportArgs {
    /// The experiment's TOML file: the report is drawn from what the store holds
    #[arg(required_unless_present = "from")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// The folder of a report: it is redrawn from its data files, without a store
    #[arg(long, value_name = "DIR", conflicts_with_all = ["spec", "sets", "store"])]
    from: Option<PathBuf>,
    /// Folder for the report [default: out/NAME; with --from that folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Formats of the figures
    #[arg(long, value_delimiter = ',', default_values_t = FigureFormat::ALL, value_name = "FORMAT")]
    formats: Vec<FigureFormat>,
}

#[derive(Debug, Args)]
struct SampleArgs {
    /// A pipeline's folder (with model_index.json)
    #[arg(long, value_name = "DIR")]
    pipeline: PathBuf,
    /// A ControlNet's folder (default: the pipeline's own controlnet/, where there is one)
    #[arg(long, value_name = "DIR")]
    controlnet: Option<PathBuf>,
    /// What the images are to show
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What they are not to show
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// The ControlNet's picture, resized where --height and --width say so
    #[arg(long, value_name = "PNG")]
    control_image: Option<PathBuf>,
    /// A mask of class indices 0 to 3 as control image: the ControlNet sees grey 0, 85, 170, 255
    #[arg(long, value_name = "PNG", conflicts_with = "control_image")]
    control_mask: Option<PathBuf>,
    /// Weight of the ControlNet's part
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    conditioning_scale: f64,
    /// ddpm, ddim, pndm, unipc, dpmsolver++, euler, euler-ancestral, heun or lcm, and for models trained by flow
    /// matching flow-euler (default: the folder's), with the folder's noise schedule
    #[arg(long, value_name = "NAME")]
    scheduler: Option<Sampler>,
    /// Where its steps lie: timesteps, karras or log-snr (default: as the folder says)
    #[arg(long, value_name = "NAME")]
    noise_levels: Option<NoiseLevels>,
    /// Denoising steps (default: 50; 1000 for DDPM without a text)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// Guidance scale: how much more the text (or class) counts; 1 or less: no guidance (default: 7.5 with a
    /// text, else 1)
    #[arg(long, value_name = "G")]
    guidance: Option<f64>,
    /// DDIM's eta, 0 to 1: how much noise a step adds
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    eta: f64,
    /// Layers left out at the text encoder's end
    #[arg(long, default_value_t = 0, value_name = "N")]
    clip_skip: i64,
    /// Class of a class-conditional unconditional model
    #[arg(long, value_name = "N")]
    class_label: Option<i64>,
    /// Starting noise: a safetensors file with one tensor (count, channels, height, width)
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Pixels (default: what the networks were trained at, or the control image's)
    #[arg(long, value_name = "PX", requires = "width", value_parser = clap::value_parser!(i64).range(1..=16384))]
    height: Option<i64>,
    /// Pixels
    #[arg(long, value_name = "PX", requires = "height", value_parser = clap::value_parser!(i64).range(1..=16384))]
    width: Option<i64>,
    /// Seed of the first image; the next ones count on from it
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// How many images
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Images at a time
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Numeric type of networks and samples
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    dtype: Precision,
    /// Variant of the weight files: fp16 for *.fp16.safetensors
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Folder for the images; must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// No progress on standard error
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct SpecArgs {
    /// The experiment's TOML file
    spec: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Override a field of the spec, such as tasks.segmentation.epochs=20 (may be given again)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// Where finished work is kept
    #[arg(long, default_value = "runs", value_name = "DIR")]
    store: PathBuf,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Make a manifest folder (manifest.csv, 8-bit PNG) from a data set as it is distributed
    Import {
        /// How the data set is laid out
        #[arg(long, value_name = "LAYOUT")]
        from: Source,
        /// The data set's folder (or HDF5 file)
        source: PathBuf,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Draw echocardiogram-like pictures with masks, in the layout of CAMUS
    Phantom {
        /// How many patients, each with two views at two phases
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(3..=9999))]
        patients: u64,
        /// Height of the pictures, pixels
        #[arg(long, value_name = "PX", default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=1024))]
        size: u64,
        /// Another seed draws other patients
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Read every file of a manifest folder and tell all that is wrong with it
    Check {
        /// A folder with manifest.csv
        folder: PathBuf,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
}

impl ValueEnum for FigureFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.label()))
    }
}

impl ValueEnum for Precision {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// The layouts that can be imported: all but the phantom, which is drawn.
impl ValueEnum for Source {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Camus, Self::Diffecho, Self::KaggleH5, Self::Folder]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.layout()))
    }
}

#[derive(Debug, Subcommand)]
enum MeasureCommand {
    /// Overlap and surface distances of predicted masks (Dice, HD95 and others), paired by file name
    Dice {
        /// Folder of true masks (PNG, class indices 0 to 3)
        #[arg(long, value_name = "DIR")]
        truth: PathBuf,
        /// Folder of predicted masks
        #[arg(long, value_name = "DIR")]
        prediction: PathBuf,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Whether synthetic images have the real ones' speckle: ratio of their power spectra by octave
    #[command(
        after_help = "Examples:\n  synecho measure texture --real data/camus --split test --synthetic out\n  synecho measure texture --real real-png --synthetic synthetic-png --json\n\nThe figure is the mean power of the synthetic images over that of the real ones inside the ultrasound sector, for wavelengths of 2-4, 4-8, 8-16 and 16-32 pixels. 1: the same; below 0.5: blurred; above 2: grainy. A factor that all octaves share is contrast rather than texture. Compared are images of one class (view and phase, from both folders' manifest.csv) and, over all, the classes in the synthetic images' proportions. Where a folder has no manifest.csv with view and phase (as the output of synecho sample), all images are compared with all.\n\nImages have to be square. Larger ones are resized to the smallest, which blurs them a little: compare sets of one size where you can. Real against other real images (--split train and a folder of the rest) shows how far from 1 the same texture can be."
    )]
    Texture {
        /// Folder of real images: with manifest.csv, or PNG and JPEG files
        #[arg(long, value_name = "DIR")]
        real: PathBuf,
        /// Folder of synthetic images, likewise
        #[arg(long, value_name = "DIR")]
        synthetic: PathBuf,
        /// Real images of this split alone: train, val or test (default: all)
        #[arg(long, value_name = "SPLIT")]
        split: Option<Split>,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Fréchet distance of two folders of images: FID in Inception's features
    #[command(after_help = FID_HELP)]
    Fid(distances::FidArgs),
    /// Kernel distance of two folders of images: unbiased, for few images too
    #[command(
        after_help = "Examples:\n  synecho measure kid --real real --synthetic synthetic --weights inception.safetensors\n\nThe mean over subsets of the unbiased squared maximum mean discrepancy with the kernel (x.y/d + 1)^3, with the very subsets of torch-fidelity. Near 0, also below it: no difference is seen. The standard error is that over subsets of these images."
    )]
    Kid(distances::KidArgs),
    /// Precision, recall, density and coverage of two folders of images
    #[command(
        after_help = "Examples:\n  synecho measure prdc --real real --synthetic synthetic --weights inception.safetensors\n\nPrecision and density: are synthetic images where real ones are? Recall and coverage: are they everywhere where real ones are? After Naeem et al. 2020, as the package prdc."
    )]
    Prdc(distances::PrdcArgs),
    /// Whether synthetic images are copies of training images
    #[command(
        after_help = "Examples:\n  synecho measure memorisation --real data/camus --split train --held-out held-out --synthetic synthetic --weights inception.safetensors\n\nEach synthetic image's distance to the nearest training image (--real), against the same of held-out real images, which cannot be copies: the share of pairs in which the synthetic image is the nearer (0.5: no sign of copying; 1: all of them), with the p of a one-sided Mann-Whitney test, which takes images for independent."
    )]
    Memorisation(distances::MemorisationArgs),
    /// Save mean and covariance of a folder's features, as pytorch-fid does
    #[command(
        after_help = "Examples:\n  synecho measure statistics --images data/camus --split train --weights inception.safetensors --out camus.npz\n  synecho measure fid --real camus.npz --synthetic synthetic --weights inception.safetensors"
    )]
    Statistics(distances::StatisticsArgs),
}

const FID_HELP: &str = "Examples:
  synecho measure fid --real real --synthetic synthetic --weights inception.safetensors
  synecho measure fid --real data/camus --split train --synthetic out --weights inception.safetensors --convention clean-fid --json

The three conventions give the figures of python -m pytorch_fid, of clean-fid's folder mode and of torch-fidelity. They differ in how images are resized to 299 pixels, and no two may be compared.

Weights: Inception's come with pytorch-fid, as pt_inception-2015-12-05-6726825d.pth of its release fid_weights on GitHub (SHA-256 6726825d...). Convert them once in Python:
  import torch, safetensors.torch
  safetensors.torch.save_file(torch.load(\"pt_inception-2015-12-05-6726825d.pth\", weights_only=True), \"inception.safetensors\")

FID is biased upwards by small n: compare it at equal n alone, or take KID. In features of another extractor the distance is not FID, and is not called so.";

/// Parses, runs, and turns an error into its exit code.
pub fn main() -> ExitCode {
    crate::memory::keep();
    crate::determinism::prepare();
    let cli = Cli::parse();
    match commands::carry_out(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            crate::progress::complain(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_option_says_what_it_is_for() {
        fn look(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some_and(|words| !words.to_string().is_empty()), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
            }
            command.get_subcommands().for_each(|inner| look(inner, &format!("{path} {}", inner.get_name())));
        }
        look(&super::Cli::command(), "synecho");
    }
}
