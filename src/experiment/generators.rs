//! `[generators.NAME]`: how synthetic images are made. The preset fills in what the user left out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::tasks::{Augment, AugmentSpec, TranslateUnit, layered};
use crate::vocabulary::{Mode, NoiseLevels, Precision, Sampler, TimeScaleShift};

/// Where the settings that are not typed come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorPreset {
    /// The paper's models at full size: for CUDA.
    Diffecho,
    /// Small networks on space-to-depth pixels, trained from scratch: for two CPU cores.
    #[default]
    Cpu,
}

/// What the network denoises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSpace {
    Pixel,
    /// Pixels with blocks of `patch` x `patch` folded into channels: nothing to train, nothing lost.
    SpaceToDepth,
    /// An autoencoder's latents.
    Latent,
}

/// How a text + segmentation network sees the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskConditioning {
    /// A ControlNet beside the text model's U-Net, which is left as it is.
    Controlnet,
    /// The mask's structures as further input channels of the U-Net, which is trained on.
    Channels,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) image.
    VPrediction,
}

/// Variance added at each of the 1000 timesteps; diffusers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Betas {
    /// 1e-4 to 0.02.
    Linear,
    /// Square roots from 0.00085 to 0.012: Stable Diffusion's.
    ScaledLinear,
    #[serde(rename = "squaredcos-cap-v2")]
    SquaredcosCapV2,
}

/// How the rate goes from `learning_rate` on, over all steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorSchedule {
    Constant,
    /// Half a cosine down to 0.
    Cosine,
}

layered! {
    /// A generator of synthetic images.
    GeneratorSpec => Generator {
        preset: GeneratorPreset,
        mode: Mode,
        /// What training starts from: another generator of the spec, or a diffusers folder. Empty: from
        /// scratch (what is then trained: `docs/spec.md`). A ControlNet needs one, of mode text.
        base: String,
        /// A finished diffusers folder: nothing is trained.
        pipeline: PathBuf,
        /// For `pipeline`: a ControlNet's folder.
        controlnet: PathBuf,
        /// For mode external: a manifest folder, or a folder that `synecho data import` understands.
        folder: PathBuf,

        /// Pixels; training images are resized to a square of this side.
        image_size: usize,
        image_space: ImageSpace,
        /// Side of the blocks that space-to-depth folds.
        patch: usize,
        /// Unconditional: one model per view and phase, as the paper's; otherwise one model that is told
        /// the class.
        per_class: bool,
        conditioning: MaskConditioning,

        /// U-Net channels from top to bottom.
        channels: Vec<i64>,
        layers_per_block: i64,
        /// Levels (0 is the top) whose blocks attend: to each other, and to the text in text modes.
        attention_levels: Vec<usize>,
        /// Channels of an attention head.
        attention_head_dim: i64,
        norm_num_groups: i64,
        /// How blocks take in time, class and text: added before a norm ("default", the paper's), or as scale and
        /// shift behind it ("scale_shift"); diffusers' words.
        resnet_time_scale_shift: TimeScaleShift,
        /// Text encoder from scratch: width, layers, heads, longest prompt in tokens.
        text_width: i64,
        text_layers: i64,
        text_heads: i64,
        text_tokens: i64,
        /// Autoencoder from scratch (image_space = "latent"): channels from top to bottom, latent
        /// channels, steps, learning rate.
        autoencoder_channels: Vec<i64>,
        latent_channels: i64,
        autoencoder_steps: usize,
        autoencoder_learning_rate: f64,

        /// Template: {view}, {phase}, {quality}, {sex}, {age}, {ef}. Of a template with commas, parts
        /// whose value is unknown are left out.
        prompt: String,
        /// Every word of the prompt becomes a random word of six letters, always the same (the paper's).
        random_tokens: bool,

        prediction: Prediction,
        betas: Betas,
        /// Optimizer steps.
        steps: usize,
        batch_size: usize,
        /// Batches whose gradients are summed for one step.
        accumulate: usize,
        /// AdamW's.
        learning_rate: f64,
        schedule: GeneratorSchedule,
        warmup_steps: usize,
        weight_decay: f64,
        /// Greatest norm of the gradient; 0: not limited.
        clip: f64,
        /// Decay of the averaged weights, which make the images; 0: no averaging.
        ema: f64,
        /// Share of the images whose prompt (class, for an unconditional model that is told it) is left out in
        /// training, for guidance.
        prompt_dropout: f64,
        /// Min-SNR loss weighting (Hang et al. 2023, gamma 5); 0: none.
        min_snr_gamma: f64,
        precision: Precision,
        /// Half of the training images are mirrored: another anatomy (the paper's, for unconditional).
        flip: bool,
        /// Steps between two validations, and between two grids of samples; 0: none.
        validate_every: usize,
        grid_every: usize,
        /// Of training and of all images.
        seed: u64,

        scheduler: Sampler,
        sampling_steps: usize,
        /// `dpmsolver++` knows all of them, `unipc` Karras's too, the others their timesteps alone.
        noise_levels: NoiseLevels,
        /// Guidance scale; 1: none.
        guidance: f64,
        negative_prompt: String,
        /// Images per view and phase.
        per_class_images: usize,
        /// Text + segmentation: images of each mask.
        per_mask: usize,
        /// Masks are moved, turned and scaled a little (`augment`'s ranges) before they are control images.
        vary_masks: bool,
        /// Unconditional and text: masks by a segmentation network trained on the arm's real images.
        pseudo_masks: bool,
        sampling_batch: usize,
    } tables {
        augment: AugmentSpec => Augment,
    }
}

/// The paper's prompt for text-guided generation.
pub const PAPER_PROMPT: &str =
    "An ultrasound image shows the heart in a {view} view during the {phase} phase.";

impl Generator {
    pub fn preset(preset: GeneratorPreset, mode: Mode) -> Self {
        match preset {
            GeneratorPreset::Cpu => Self::cpu(mode),
            GeneratorPreset::Diffecho => Self::diffecho(mode),
        }
    }

    fn cpu(mode: Mode) -> Self {
        Self {
            preset: GeneratorPreset::Cpu,
            mode,
            base: String::new(),
            pipeline: PathBuf::new(),
            controlnet: PathBuf::new(),
            folder: PathBuf::new(),
            image_size: 128,
            image_space: ImageSpace::SpaceToDepth,
            patch: 4,
            per_class: false,
            conditioning: MaskConditioning::Channels,
            channels: vec![64, 96, 160],
            layers_per_block: 1,
            attention_levels: vec![2],
            attention_head_dim: 32,
            norm_num_groups: 16,
            resnet_time_scale_shift: TimeScaleShift::ScaleShift,
            text_width: 128,
            text_layers: 2,
            text_heads: 4,
            text_tokens: 32,
            autoencoder_channels: vec![24, 48, 64],
            latent_channels: 4,
            autoencoder_steps: 1000,
            autoencoder_learning_rate: 1e-3,
            prompt: "{view} apical view, {phase}, {quality} quality, {sex}, {age}, {ef}".into(),
            random_tokens: false,
            prediction: Prediction::VPrediction,
            // Where no mask says where things are, half of the steps at much noise, where that is decided.
            betas: match mode {
                Mode::TextSegmentation => Betas::SquaredcosCapV2,
                _ => Betas::Linear,
            },
            steps: match mode {
                Mode::Text => 6000,
                Mode::TextSegmentation => 2000, // from the text model
                _ => 3000,
            },
            batch_size: 8,
            accumulate: 1,
            learning_rate: 1e-3,
            schedule: GeneratorSchedule::Cosine,
            warmup_steps: 200,
            weight_decay: 0.01,
            clip: 1.0,
            ema: 0.999,
            prompt_dropout: 0.1,
            min_snr_gamma: 0.0,
            precision: Precision::F32,
            flip: false,
            validate_every: 500,
            grid_every: 2000,
            seed: 0,
            // Speckle is made where little noise is left. Of one text model on CAMUS (16 images of 2CH ED) the finest
            // octave had 0.62 of the real ones' power with DDIM in 50 steps that are even in time, 0.87 with
            // these 25, and 0.82 with 40.
            scheduler: Sampler::DpmSolver,
            sampling_steps: 25,
            noise_levels: NoiseLevels::LogSnr,
            guidance: 1.0,
            negative_prompt: String::new(),
            per_class_images: 100,
            per_mask: 1,
            vary_masks: false,
            pseudo_masks: false,
            sampling_batch: 16,
            augment: Augment {
                enabled: true,
                rotate: 7.0,
                translate: 0.04,
                translate_unit: TranslateUnit::Fraction,
                scale: 0.08,
                shear: 0.0,
                brightness: 0.1,
                contrast: 0.1,
                nearest_images: false,
            },
        }
    }

    /// The numbers of the paper's scripts.
    fn diffecho(mode: Mode) -> Self {
        let base = Self {
            preset: GeneratorPreset::Diffecho,
            noise_levels: NoiseLevels::Timesteps,
            resnet_time_scale_shift: TimeScaleShift::Default,
            prediction: Prediction::Epsilon,
            precision: Precision::Bf16,
            layers_per_block: 2,
            per_class_images: 800,
            accumulate: 1,
            clip: 1.0,
            warmup_steps: 0,
            conditioning: MaskConditioning::Controlnet,
            batch_size: 16,
            prompt_dropout: 0.0,
            validate_every: 500,
            grid_every: 5000,
            augment: Augment { enabled: false, ..Self::cpu(mode).augment },
            ..Self::cpu(mode)
        };
        let latent = Self {
            image_size: 512,
            image_space: ImageSpace::Latent,
            betas: Betas::ScaledLinear,
            schedule: GeneratorSchedule::Constant,
            channels: vec![320, 640, 1280, 1280],
            attention_levels: vec![0, 1, 2],
            attention_head_dim: 8,
            norm_num_groups: 32,
            scheduler: Sampler::UniPc,
            guidance: 7.5,
            batch_size: 1,
            text_tokens: 77,
            sampling_batch: 4,
            ..base.clone()
        };
        match mode {
            // 400 epochs of 400 images in batches of 16; fp16 there.
            Mode::Unconditional | Mode::External => Self {
                per_class: true,
                image_space: ImageSpace::Pixel,
                patch: 1,
                betas: Betas::Linear,
                channels: vec![64, 64, 128, 128, 256, 256],
                attention_levels: vec![4],
                attention_head_dim: 8,
                norm_num_groups: 32,
                steps: 10_000,
                learning_rate: 1e-4,
                warmup_steps: 500,
                flip: true,
                scheduler: Sampler::Ddpm,
                sampling_steps: 1000,
                ..base
            },
            Mode::Text => Self {
                accumulate: 4,
                learning_rate: 1e-5,
                ema: 0.9999,
                steps: 35_000,
                sampling_steps: 40,
                prompt: PAPER_PROMPT.into(),
                random_tokens: true,
                ..latent
            },
            Mode::TextSegmentation => Self {
                learning_rate: 5e-6,
                ema: 0.0,
                steps: 120_000,
                sampling_steps: 50,
                per_mask: 5,
                prompt: "an ultrasound image of heart in {view} view".into(),
                augment: Augment { enabled: true, ..Augment::preset(super::Preset::Corrected) },
                ..latent
            },
        }
    }

    /// Whether Synecho trains it.
    pub fn is_trained(&self) -> bool {
        self.mode != Mode::External && self.pipeline.as_os_str().is_empty()
    }

    /// Whether its images come with masks (external ones should).
    pub fn has_masks(&self) -> bool {
        self.pseudo_masks || matches!(self.mode, Mode::TextSegmentation | Mode::External)
    }

    /// Settings that only decide how finished networks are sampled.
    pub const SAMPLING: [&'static str; 11] = [
        "scheduler",
        "noise_levels",
        "sampling_steps",
        "guidance",
        "negative_prompt",
        "per_class_images",
        "per_mask",
        "vary_masks",
        "pseudo_masks",
        "sampling_batch",
        "controlnet",
    ];

    /// Settings that name or place something.
    pub const PLACES: [&'static str; 5] = ["preset", "base", "pipeline", "folder", "controlnet"];
}
