//! The command line: what can be asked, and with which words. No logic.

mod cache;
mod commands;
mod distances;
mod output;
mod request;
mod status;
mod weights;

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
    after_help = "Examples:\n  synecho run experiments/quickstart.toml            runs everything on the built-in phantom\n  synecho plan experiments/camus-real.toml           shows what would run and what the store has\n  synecho data import --from camus CAMUS --to data/camus\n\nResults go to standard output, progress to standard error. Exit codes: 0 done, 1 a stage failed, 2 the request was wrong, 130 interrupted.\n\nEnvironment: SYNECHO_STORE and SYNECHO_DEVICE set the defaults of --store and --device. SYNECHO_WEIGHTS names the folder of extractors' weights."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an experiment: compute what the store lacks, then draw the report
    #[command(
        after_help = "Examples:\n  synecho run experiments/quickstart.toml\n  synecho run experiments/camus-segmentation-cpu.toml --set data.root='\"DIR\"'\n  synecho run my.toml --device cuda:1 --jobs 2\n\nThe report is written to out/NAME. Finished stages are kept in runs/. The same command resumes a run that was interrupted."
    )]
    Run(RunArgs),
    /// Show what would run, what the store has, and about how long the rest takes
    Plan {
        #[command(flatten)]
        spec: SpecArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what is done, running and failed, with rate and time left
    Status {
        /// The experiment's TOML file [default: count the whole store]
        spec: Option<PathBuf>,
        #[command(flatten)]
        set: SetArgs,
        #[command(flatten)]
        store: StoreArgs,
        /// Refresh every few seconds until Ctrl-C
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show where a number of a report comes from: seeds, n, and the stages behind it
    #[command(
        after_help = "Examples:\n  synecho explain out/quickstart                           lists its cells\n  synecho explain out/quickstart \"segmentation/real\"\n  synecho explain out/quickstart \"segmentation/real/monai-unet/0\"\n\nThe command reads the report's own files (stages.json, measurements.csv.gz and tables/). It needs no store."
    )]
    Explain {
        /// A report's folder
        report: PathBuf,
        /// TASK/ARM, TASK/ARM/MODEL, TASK/ARM/MODEL/SEED or generation/NAME [default: list the cells]
        cell: Option<String>,
    },
    /// Redraw a report from the store or from its own data files. Trains nothing
    #[command(
        after_help = "Examples:\n  synecho report experiments/quickstart.toml                 from the store, into out/quickstart\n  synecho report --from out/quickstart                       from the report's own data files, in place\n  synecho report --from out/quickstart --out site --formats svg,pdf"
    )]
    Report(ReportArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  synecho completions bash > ~/.local/share/bash-completion/completions/synecho\n  synecho completions zsh > ~/.zfunc/_synecho\n  synecho completions fish > ~/.config/fish/completions/synecho.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder, one per command
    Man {
        /// For example ~/.local/share/man/man1
        folder: PathBuf,
    },
    /// Report what this machine offers: libtorch, CUDA, threads, precision, store
    Doctor {
        #[command(flatten)]
        store: StoreArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Generate images with a diffusers pipeline: unconditional, text, text + segmentation
    #[command(
        after_help = "Examples:\n  synecho sample --pipeline ddpm-camus --count 16 --out out\n  synecho sample --pipeline sd-v1-5 --prompt \"an ultrasound image of heart in two-chamber view\" --scheduler unipc --steps 40 --out out\n  synecho sample --pipeline sd-v1-5 --controlnet echo-controlnet --prompt \"...\" --control-mask mask.png --out out\n\nThe pipeline is a folder that diffusers' save_pretrained wrote, with safetensors or .bin weights. Each image has its own seed: image i of a run with --seed S has the seed S + i, and --seed S+i --count 1 makes it again. The output folder gets PNG files and manifest.csv."
    )]
    Sample(Box<SampleArgs>),
    /// Import and check data sets, or draw the phantom
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure folders of images or masks
    #[command(subcommand)]
    Measure(MeasureCommand),
    /// Look into files of weights (safetensors, PyTorch), and convert them
    #[command(subcommand)]
    Weights(weights::WeightsCommand),
    /// Show or clear the features of images that `measure` keeps between calls
    #[command(subcommand)]
    Cache(cache::CacheCommand),
}

/// Where finished work is kept.
const STORE: &str = "runs";

/// The device without CUDA.
const CPU: &str = "cpu";

/// Where reports are drawn, each in a folder of its experiment's name.
const OUT: &str = "out";

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Processes that share the work and the cores [default: one per core and at most 4; with CUDA 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Threads of each process [default: the cores divided by the jobs]. Results depend on this number by rounding
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Stop at the first stage that fails
    #[arg(long)]
    fail_fast: bool,
    /// Folder for reports: the report is written to DIR/NAME
    #[arg(long, default_value = OUT, value_name = "DIR")]
    reports: PathBuf,
    /// Print only errors. The log in STORE/logs has the rest
    #[arg(short, long)]
    quiet: bool,
    /// Print each validation and the end of each stage as well
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Seconds between two checkpoints of a training, at least; 0: after every epoch.
    #[arg(long, hide = true, value_name = "SECONDS", default_value_t = CHECKPOINT_EVERY)]
    checkpoint_every: f64,
    /// This process is one of several that share the work: the report is the first one's.
    #[arg(long, hide = true)]
    helper: bool,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// The experiment's TOML file: the report is drawn from the store
    spec: Option<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// A report's folder: the report is redrawn from its data files, without a store
    #[arg(long, value_name = "DIR", conflicts_with_all = ["spec", "sets"])]
    from: Option<PathBuf>,
    /// Where to write the report [default: out/NAME; with --from, that folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Formats of the figures
    #[arg(long, value_delimiter = ',', default_values_t = FigureFormat::ALL, value_name = "FORMAT")]
    formats: Vec<FigureFormat>,
}

#[derive(Debug, Args)]
struct SampleArgs {
    /// The pipeline's folder, which holds model_index.json
    #[arg(long, value_name = "DIR")]
    pipeline: PathBuf,
    /// A ControlNet's folder [default: the pipeline's controlnet/, if it has one]
    #[arg(long, value_name = "DIR")]
    controlnet: Option<PathBuf>,
    /// What the images should show
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What the images should not show
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Picture for the ControlNet, resized to --height and --width if they are given
    #[arg(long, value_name = "PNG")]
    control_image: Option<PathBuf>,
    /// Mask of class indices 0 to 3 for the ControlNet, which gets grey 0, 85, 170 and 255
    #[arg(long, value_name = "PNG", conflicts_with = "control_image")]
    control_mask: Option<PathBuf>,
    /// Echocardiogram in whose ultrasound sector the image is to lie, for a model that is given the sector with the mask
    #[arg(long, value_name = "PNG", requires = "control_mask")]
    sector: Option<PathBuf>,
    /// Weight of the ControlNet's output
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    conditioning_scale: f64,
    /// ddpm, ddim, pndm, unipc, dpmsolver++, euler, euler-ancestral, heun or lcm; for models trained by flow matching
    /// flow-euler, flow-heun or flow-midpoint [default: the run's that trained the model, or the pipeline's]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<Sampler>,
    /// How the steps are spaced: timesteps, karras, log-snr or even [default: the run's, or the pipeline's]
    #[arg(long, value_name = "NAME")]
    noise_levels: Option<NoiseLevels>,
    /// For flow matching: below 1 more steps lie where little noise is left, above 1 where much is [default: the run's, or the
    /// pipeline's]
    #[arg(long, value_name = "X")]
    shift: Option<f64>,
    /// Denoising steps [default: the run's that trained the model, or diffusers' 50; 1000 for DDPM without text]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// Guidance scale. 1 or less switches guidance off [default: the run's, or 7.5 with text and else 1]
    #[arg(long, value_name = "G")]
    guidance: Option<f64>,
    /// DDIM's eta, from 0 to 1: how much noise each step adds
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    eta: f64,
    /// Layers to skip at the end of the text encoder
    #[arg(long, default_value_t = 0, value_name = "N")]
    clip_skip: i64,
    /// Class index for a class-conditional model
    #[arg(long, value_name = "N")]
    class_label: Option<i64>,
    /// Initial noise: a file with one tensor (count, channels, height, width)
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Height in pixels [default: the networks' training size, or the control image's size]
    #[arg(long, value_name = "PX", requires = "width", value_parser = clap::value_parser!(i64).range(1..=16384))]
    height: Option<i64>,
    /// Width in pixels
    #[arg(long, value_name = "PX", requires = "height", value_parser = clap::value_parser!(i64).range(1..=16384))]
    width: Option<i64>,
    /// Seed of the first image. Each following image has the next seed
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Number of images
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Images per batch
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Numeric type of the networks and samples
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    dtype: Precision,
    /// Variant of the weight files: fp16 reads *.fp16.safetensors
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_name = "DEVICE", env = "SYNECHO_DEVICE")]
    device: String,
    /// Output folder. It must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print only errors
    #[arg(short, long)]
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
    /// Override a key of the spec, such as tasks.segmentation.epochs=20. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// cpu, cuda or cuda:N: where the experiment runs. precision = "auto" depends on it
    #[arg(long, default_value = CPU, value_name = "DEVICE", env = "SYNECHO_DEVICE")]
    device: String,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// Folder of finished stages
    #[arg(long, default_value = STORE, value_name = "DIR", env = "SYNECHO_STORE")]
    store: PathBuf,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Convert a data set into a manifest folder: manifest.csv and 8-bit PNG files
    Import {
        /// Layout of the data set
        #[arg(long, value_name = "LAYOUT")]
        from: Source,
        /// The data set's folder or HDF5 file
        source: PathBuf,
        /// The folder to create
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Draw simulated echocardiograms with masks, in the layout of CAMUS
    Phantom {
        /// Number of patients, each with two views at two phases
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(3..=9999))]
        patients: u64,
        /// Height of the pictures in pixels
        #[arg(long, value_name = "PX", default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=1024))]
        size: u64,
        /// Each seed draws different patients
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The folder to create
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Read every file of a manifest folder and report everything that is wrong
    Check {
        /// A folder with manifest.csv
        folder: PathBuf,
        /// Print one JSON document
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
        &[Self::F32, Self::Bf16, Self::F16]
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
    /// Every measure of two folders of images, in one pass over them
    #[command(
        after_help = "Examples:\n  synecho measure all data/camus synthetic --split train --weights inception.safetensors\n  synecho measure all real synthetic --held-out held-out --json\n\nA measure that these images do not allow is left out, and the output says why."
    )]
    All(distances::AllArgs),
    /// Overlap and surface distances of predicted masks: Dice, IoU, HD95 and others
    #[command(
        after_help = "Examples:\n  synecho measure dice labelsTs predictions\n  synecho measure dice labelsTs predictions --common --cases --json\n\nMasks hold class indices 0 to 3 (PNG or NIfTI). They are paired by manifest.csv where both folders have one, else by file name without its ending. Distances are in mm where the pixel size of every pair is known (manifest.csv, NIfTI header), else in pixels."
    )]
    Dice(DiceArgs),
    /// Ejection fraction of patients from their masks, by Simpson's biplane method
    #[command(
        after_help = "Examples:\n  synecho measure ef data/camus\n  synecho measure ef data/camus predictions --split test --cases --json\n\nThe first folder has a manifest.csv, with masks of class indices 0 to 3 and, if known, the columns ef (recorded EF in %), spacing_x and spacing_y (mm). The second holds predicted masks: with a manifest.csv, or named as the masks or images of the first. The output gives the correlation, bias, limits of agreement and mean absolute error of predicted against reference masks and of both against the recorded EF.\n\nA patient needs one mask each of 2CH ED, 2CH ES, 4CH ED and 4CH ES, with ventricle and atrium. Other patients have no EF: they are counted and named. All four masks share one disc height."
    )]
    Ef(EfArgs),
    /// Compare the speckle of synthetic and real images: power spectra by octave
    #[command(
        after_help = "Examples:\n  synecho measure texture data/camus synthetic --split test\n  synecho measure texture real-png synthetic-png --json\n\nThe figure is the mean power of the synthetic images divided by that of the real ones, inside the ultrasound sector, for wavelengths of 2-4, 4-8, 8-16 and 16-32 pixels. A value of 1 means the same power, below 0.5 blurred, above 2 grainy. A factor that all octaves share is contrast, not texture. Images are compared class by class (view and phase, from both manifest.csv files). The total weights the classes as the synthetic images have them. If a folder has no manifest.csv with view and phase, all its images are compared together.\n\nImages must be square. Larger ones are resized to the smallest, which blurs them a little: compare sets of one size if you can. Real images against other real images show how far from 1 equal textures can be."
    )]
    Texture {
        #[command(flatten)]
        sets: distances::ImageSetArgs,
        /// Only real images of this split: train, val or test [default: all]
        #[arg(long, value_name = "SPLIT")]
        split: Option<Split>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Fréchet distance between two folders of images. In Inception's features it is FID
    #[command(after_help = FID_HELP)]
    Fid(distances::FidArgs),
    /// Kernel Inception distance between two folders of images, unbiased even for few images
    #[command(
        after_help = "Examples:\n  synecho measure kid real synthetic --weights inception.safetensors\n\nThe value is the mean, over subsets, of the unbiased squared maximum mean discrepancy with the kernel (x.y/d + 1)^3. The subsets are those of torch-fidelity. A value near or below 0 means that no difference is seen. The standard error is over the subsets."
    )]
    Kid(distances::KidArgs),
    /// Precision, recall, density and coverage of synthetic images
    #[command(
        after_help = "Examples:\n  synecho measure prdc real synthetic --weights inception.safetensors\n\nPrecision and density ask whether synthetic images lie where real ones do. Recall and coverage ask whether they lie everywhere that real ones do. The definitions are those of Naeem et al. 2020 and of the package prdc."
    )]
    Prdc(distances::PrdcArgs),
    /// Test whether synthetic images copy training images
    #[command(
        after_help = "Examples:\n  synecho measure memorisation data/camus synthetic --split train --held-out held-out --weights inception.safetensors\n\nThe test takes the distance of each synthetic image to its nearest training image (the real folder) and compares it with the same distance of held-out real images, which cannot be copies. The value is the share of pairs in which the synthetic image is nearer: 0.5 shows no sign of copying, 1 means every image. p is from a one-sided Mann-Whitney test, which treats images as independent."
    )]
    Memorisation(distances::MemorisationArgs),
    /// Save the mean and covariance of a folder's features, as pytorch-fid does
    #[command(
        after_help = "Examples:\n  synecho measure statistics --images data/camus --split train --weights inception.safetensors --out camus.npz\n  synecho measure fid camus.npz synthetic --weights inception.safetensors"
    )]
    Statistics(distances::StatisticsArgs),
}

#[derive(Debug, Args)]
struct EfArgs {
    /// Folder of reference masks, with manifest.csv
    #[arg(value_name = "REFERENCE")]
    reference: PathBuf,
    /// Folder of predicted masks [default: only the reference masks are measured]
    #[arg(value_name = "PREDICTION")]
    prediction: Option<PathBuf>,
    /// Only patients of this split: train, val or test [default: all]
    #[arg(long, value_name = "SPLIT")]
    split: Option<Split>,
    /// List every patient as well
    #[arg(long, requires = "json")]
    cases: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DiceArgs {
    /// Folder of true masks
    #[arg(value_name = "TRUTH")]
    first: Option<PathBuf>,
    /// Folder of predicted masks
    #[arg(value_name = "PREDICTION")]
    second: Option<PathBuf>,
    /// The folder of true masks, by name
    #[arg(long, value_name = "DIR")]
    truth: Option<PathBuf>,
    /// The folder of predicted masks, by name
    #[arg(long, value_name = "DIR")]
    prediction: Option<PathBuf>,
    /// Compare the masks that both folders hold, and report how many are left out
    #[arg(long)]
    common: bool,
    /// List the scores of every pair as well
    #[arg(long, requires = "json")]
    cases: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const FID_HELP: &str = "Examples:
  synecho measure fid real synthetic --weights inception.safetensors
  synecho measure fid data/camus synthetic --split train --convention clean-fid --json

The three conventions give the values of python -m pytorch_fid, of clean-fid's folder mode and of torch-fidelity. They resize images to 299 pixels in different ways, so their values cannot be compared with each other.

Weights: Inception's weights come with pytorch-fid, as pt_inception-2015-12-05-6726825d.pth of its release fid_weights on GitHub (SHA-256 6726825d...). Name the file as it is downloaded, or put it into data/weights, where it is found without --weights.

Few images bias FID upwards: compare it only at equal n, or use KID. In the features of another extractor the distance is not FID and is not called FID.";

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
