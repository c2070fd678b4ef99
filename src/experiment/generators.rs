//! `[generators.NAME]`: how synthetic images are made. The preset fills in what the user left out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::augment::{Augment, AugmentSpec, Interpolation, TranslateUnit};
use crate::vocabulary::{
    Betas, GeneratorCheckpoint, KeptPart, Mode, NoiseLevels, Objective, Precision, Prediction, Sampler,
    TimeSampling, TimeScaleShift,
};

/// Where the settings that are not typed come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorPreset {
    /// The paper's models at full size: for CUDA.
    Diffecho,
    /// The paper's successor, flow matching at full size (MOTFM, arXiv 2503.00266): for CUDA.
    Motfm,
    /// Flow matching with small networks on space-to-depth pixels, trained from scratch: for two CPU cores.
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

/// How the rate goes from `learning_rate` on, over all steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorSchedule {
    Constant,
    /// Half a cosine down to 0.
    Cosine,
}

/// Declares the sections of a generator, and the one table with all of their keys that they are typed as. Keys in
/// `own` belong to no section: several parts of the program need them. The order is that of the resolved spec.
macro_rules! sections {
    (@section own { $($fields:tt)* }) => {};
    (@section $(#[$meta:meta])* $section:ident { $( $(#[$doc:meta])* $field:ident : $ty:ty ),* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct $section {
            $( $(#[$doc])* pub $field: $ty, )*
        }

        impl $section {
            /// The typed keys over these.
            fn overlaid(self, typed: &mut GeneratorSpec) -> Self {
                Self { $( $field: typed.$field.take().unwrap_or(self.$field), )* }
            }
        }
    };
    ($( $(#[$meta:meta])* $section:ident {
        $( $(#[$doc:meta])* $field:ident : $ty:ty ),* $(,)?
    } )*) => {
        /// As typed; see [`Generator`].
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct GeneratorSpec {
            $( $( pub $field: Option<$ty>, )* )*
        }

        $( sections!(@section $(#[$meta])* $section { $( $(#[$doc])* $field : $ty ),* }); )*
    };
}

sections! {
    own {
        preset: GeneratorPreset,
        mode: Mode,
    }

    /// Where a generator comes from.
    GeneratorSource {
        /// What training starts from: another generator of the spec, or a diffusers folder. Empty: from
        /// scratch (what is then trained: `docs/spec.md`). Inpaint: the unconditional generator whose networks it
        /// samples.
        base: String,
        /// A finished diffusers folder: nothing is trained.
        pipeline: PathBuf,
        /// For `pipeline`: a ControlNet's folder.
        controlnet: PathBuf,
        /// For mode external: a manifest folder, or a folder that `synecho data import` understands.
        folder: PathBuf,
    }

    own {
        image_size: usize,
    }

    /// Which networks are built.
    GeneratorNetworks {
        image_space: ImageSpace,
        /// Side of the blocks that space-to-depth folds.
        patch: usize,
        /// Unconditional: one model per view and phase, as the paper's; otherwise one model that gets the class as
        /// an input.
        per_class: bool,
        conditioning: MaskConditioning,
        /// Text + segmentation: the network is also given the ultrasound sector, found in the image that the mask belongs
        /// to.
        sector: bool,

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
    }

    /// The prompts of training and of sampling.
    GeneratorPrompts {
        /// Template: {view}, {phase}, {quality}, {sex}, {age}, {ef}. Where a template has commas, the parts
        /// whose value is unknown are omitted.
        prompt: String,
        /// Every word of the prompt becomes a random word of six letters, always the same (the paper's).
        random_tokens: bool,
    }

    /// How the networks are trained.
    GeneratorTraining {
        objective: Objective,
        /// Flow matching: how the share of noise is drawn.
        time_sampling: TimeSampling,
        /// Flow matching: each batch pairs its images with the noise that is nearest to them (minibatch optimal
        /// transport).
        optimal_transport: bool,
        /// Flow matching, text + segmentation: share of the blurred mask in what sampling begins with; 0: only noise.
        mask_start: f64,
        /// Diffusion: what the network predicts, and the variance that each timestep adds.
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
        /// Share of the images whose prompt (or class, for an unconditional model of all classes) is omitted in
        /// training, for guidance.
        prompt_dropout: f64,
        /// Text + segmentation: these images go without the structures of their mask as well, so that guidance is towards
        /// the mask and not only towards the text.
        drop_masks: bool,
        /// Min-SNR loss weighting (Hang et al. 2023, gamma 5); 0: none.
        min_snr_gamma: f64,
        precision: Precision,
        /// Half of the training images are mirrored: another anatomy (the paper's, for unconditional).
        flip: bool,
        /// Steps between two validations, and between two grids of samples; 0: none.
        validate_every: usize,
        grid_every: usize,
    }

    /// What is measured of a generator while it is trained.
    GeneratorQuality {
        /// Steps between two measurements; 0: none.
        quality_every: usize,
        /// Images of each view and phase.
        quality_images: usize,
        /// By what the weights are chosen.
        checkpoint: GeneratorCheckpoint,
    }

    own {
        seed: u64,
    }

    /// How finished networks make images.
    GeneratorSampling {
        scheduler: Sampler,
        sampling_steps: usize,
        /// `dpmsolver++`, `euler` and `heun` have all of them, `unipc` and `flow-euler` Karras's too, the others only
        /// their timesteps.
        noise_levels: NoiseLevels,
        /// Flow: what moves them; below 1 more of them lie where little noise is left. 0: as the scheduler of the networks has it.
        shift: f64,
        /// Guidance scale; 1: none.
        guidance: f64,
        negative_prompt: String,
        /// Images per view and phase.
        per_class_images: usize,
        /// Text + segmentation: images of each mask.
        per_mask: usize,
        /// Text + segmentation: images made for each that is kept, the one in which a segmentation network trained on the arm's
        /// real images sees most of its mask.
        candidates: usize,
        /// Inpaint: the part of each real image that is kept.
        keep: KeptPart,
        /// Inpaint: how often each step is taken, with noise added again in between, so that the rest fits to what is kept
        /// (RePaint, Lugmayr et al., arXiv 2201.09865).
        resample: usize,
        /// Masks are moved, turned and scaled a little (`augment`'s ranges) before they are control images.
        vary_masks: bool,
        /// Unconditional and text: masks by a segmentation network trained on the arm's real images.
        pseudo_masks: bool,
        sampling_batch: usize,
    }

    own {
        augment: AugmentSpec,
    }
}

/// A generator of synthetic images. The sections are written as one table, in this order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generator {
    pub preset: GeneratorPreset,
    pub mode: Mode,
    #[serde(flatten)]
    pub source: GeneratorSource,
    /// Pixels; training images are resized to a square of this side.
    pub image_size: usize,
    #[serde(flatten)]
    pub networks: GeneratorNetworks,
    #[serde(flatten)]
    pub prompts: GeneratorPrompts,
    #[serde(flatten)]
    pub training: GeneratorTraining,
    #[serde(flatten)]
    pub quality: GeneratorQuality,
    /// Of training and of all images.
    pub seed: u64,
    #[serde(flatten)]
    pub sampling: GeneratorSampling,
    /// Of training images, and of control masks where `vary_masks` asks for it.
    pub augment: Augment,
}

impl GeneratorSpec {
    /// The typed keys over `base`'s.
    pub fn over(mut self, base: Generator) -> Generator {
        Generator {
            preset: self.preset.unwrap_or(base.preset),
            mode: self.mode.unwrap_or(base.mode),
            source: base.source.overlaid(&mut self),
            image_size: self.image_size.unwrap_or(base.image_size),
            networks: base.networks.overlaid(&mut self),
            prompts: base.prompts.overlaid(&mut self),
            training: base.training.overlaid(&mut self),
            quality: base.quality.overlaid(&mut self),
            seed: self.seed.unwrap_or(base.seed),
            sampling: base.sampling.overlaid(&mut self),
            augment: self.augment.unwrap_or_default().over(base.augment),
        }
    }
}

/// The paper's prompt for text-guided generation.
pub const PAPER_PROMPT: &str =
    "An ultrasound image shows the heart in a {view} view during the {phase} phase.";

impl Generator {
    pub fn preset(preset: GeneratorPreset, mode: Mode) -> Self {
        match preset {
            GeneratorPreset::Cpu => Self::cpu(mode),
            GeneratorPreset::Motfm => Self::motfm(mode),
            GeneratorPreset::Diffecho => Self::diffecho(mode),
        }
    }

    fn cpu(mode: Mode) -> Self {
        // Ten calls of the network either way. Speckle is made where little noise is left: of one model with masks on CAMUS
        // (400 images) the finest octave had 0.20 of the real ones' power with ten even steps of Euler's, 0.33 with five of
        // the midpoint rule, and 0.41 with these.
        let (scheduler, sampling_steps, shift) = match mode {
            Mode::Inpaint => (Sampler::FlowEuler, 10, 0.0),
            _ => (Sampler::FlowMidpoint, 5, 0.5),
        };
        Self {
            preset: GeneratorPreset::Cpu,
            mode,
            source: GeneratorSource {
                base: String::new(),
                pipeline: PathBuf::new(),
                controlnet: PathBuf::new(),
                folder: PathBuf::new(),
            },
            image_size: 128,
            networks: GeneratorNetworks {
                image_space: ImageSpace::SpaceToDepth,
                patch: 4,
                per_class: false,
                conditioning: MaskConditioning::Channels,
                sector: mode == Mode::TextSegmentation,
                channels: vec![96, 128, 160],
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
            },
            prompts: GeneratorPrompts {
                prompt: "{view} apical view, {phase}, {quality} quality, {sex}, {age}, {ef}".into(),
                random_tokens: false,
            },
            training: GeneratorTraining {
                objective: Objective::Flow,
                time_sampling: TimeSampling::Mixed,
                optimal_transport: false,
                mask_start: 0.0,
                prediction: Prediction::VPrediction,
                // Without a mask, half of the steps train at much noise, where the layout of the image is decided.
                betas: match mode {
                    Mode::TextSegmentation => Betas::SquaredcosCapV2,
                    _ => Betas::Linear,
                },
                steps: 4500,
                batch_size: 16,
                accumulate: 1,
                learning_rate: 1e-3,
                schedule: GeneratorSchedule::Cosine,
                warmup_steps: 200,
                weight_decay: 0.01,
                clip: 1.0,
                ema: 0.999,
                prompt_dropout: 0.1,
                drop_masks: mode == Mode::TextSegmentation,
                min_snr_gamma: 0.0,
                precision: Precision::Auto,
                flip: false,
                validate_every: 500,
                grid_every: 2000,
            },
            quality: GeneratorQuality {
                quality_every: 0,
                quality_images: 16,
                checkpoint: GeneratorCheckpoint::Last,
            },
            seed: 0,
            sampling: GeneratorSampling {
                scheduler,
                sampling_steps,
                noise_levels: NoiseLevels::Even,
                shift,
                guidance: 1.0,
                negative_prompt: String::new(),
                per_class_images: 100,
                per_mask: 1,
                candidates: 1,
                keep: KeptPart::Heart,
                resample: 3,
                vary_masks: false,
                pseudo_masks: false,
                sampling_batch: 16,
            },
            augment: Augment {
                enabled: true,
                rotate: 7.0,
                translate: 0.04,
                translate_unit: TranslateUnit::Fraction,
                scale: 0.08,
                shear: 0.0,
                brightness: 0.1,
                contrast: 0.1,
                gamma: 0.0,
                noise: 0.0,
                interpolation: Interpolation::Bicubic,
            },
        }
    }

    /// The same with another objective, and with what then samples its networks.
    pub fn with_objective(self, objective: Objective) -> Self {
        if self.training.objective == objective {
            return self;
        }
        let sampling = match objective {
            Objective::Flow => GeneratorSampling {
                scheduler: Sampler::FlowEuler,
                sampling_steps: 10,
                noise_levels: NoiseLevels::Even,
                shift: 0.0,
                ..self.sampling
            },
            // Speckle is made where little noise is left. Of one text model on CAMUS (16 images of 2CH ED) the finest
            // octave had 0.62 of the real ones' power with DDIM in 50 steps that are even in time, 0.87 with these 25,
            // and 0.82 with 40.
            Objective::Diffusion => GeneratorSampling {
                scheduler: Sampler::DpmSolver,
                sampling_steps: 25,
                noise_levels: NoiseLevels::LogSnr,
                shift: 0.0,
                ..self.sampling
            },
        };
        Self { training: GeneratorTraining { objective, ..self.training }, sampling, ..self }
    }

    /// Flow matching in pixels as in the paper's successor. Its mask goes through a ControlNet that is trained together
    /// with the U-Net; its class is in the prompt.
    fn motfm(mode: Mode) -> Self {
        let base = Self::cpu(mode);
        Self {
            preset: GeneratorPreset::Motfm,
            image_size: 384,
            networks: GeneratorNetworks {
                image_space: ImageSpace::Pixel,
                patch: 1,
                conditioning: MaskConditioning::Controlnet,
                sector: false,
                channels: vec![32, 64, 128, 256, 512],
                layers_per_block: 2,
                attention_levels: vec![3, 4],
                attention_head_dim: 64,
                norm_num_groups: 32,
                resnet_time_scale_shift: TimeScaleShift::Default,
                ..base.networks
            },
            training: GeneratorTraining {
                time_sampling: TimeSampling::Uniform,
                // 200 epochs of 1600 images in batches of 8.
                steps: 40_000,
                batch_size: 8,
                learning_rate: 1e-4,
                schedule: GeneratorSchedule::Constant,
                warmup_steps: 0,
                weight_decay: 0.0,
                ema: 0.0,
                prompt_dropout: 0.0,
                drop_masks: false,
                precision: Precision::Bf16,
                grid_every: 5000,
                ..base.training
            },
            sampling: GeneratorSampling {
                scheduler: Sampler::FlowEuler,
                sampling_steps: 10,
                shift: 0.0,
                per_class_images: 800,
                ..base.sampling
            },
            augment: Augment { enabled: false, ..base.augment },
            ..base
        }
    }

    /// The numbers of the paper's scripts.
    fn diffecho(mode: Mode) -> Self {
        let base = Self::cpu(mode).with_objective(Objective::Diffusion);
        let base = Self {
            preset: GeneratorPreset::Diffecho,
            networks: GeneratorNetworks {
                conditioning: MaskConditioning::Controlnet,
                sector: false,
                layers_per_block: 2,
                attention_head_dim: 8,
                norm_num_groups: 32,
                resnet_time_scale_shift: TimeScaleShift::Default,
                ..base.networks
            },
            training: GeneratorTraining {
                prediction: Prediction::Epsilon,
                batch_size: 16,
                warmup_steps: 0,
                prompt_dropout: 0.0,
                drop_masks: false,
                precision: Precision::Bf16,
                grid_every: 5000,
                ..base.training
            },
            sampling: GeneratorSampling {
                noise_levels: NoiseLevels::Timesteps,
                per_class_images: 800,
                ..base.sampling
            },
            augment: Augment { enabled: false, interpolation: Interpolation::Bilinear, ..base.augment },
            ..base
        };
        match mode {
            // 400 epochs of 400 images in batches of 16; fp16 there.
            Mode::Unconditional | Mode::Inpaint | Mode::External => Self {
                networks: GeneratorNetworks {
                    image_space: ImageSpace::Pixel,
                    patch: 1,
                    per_class: true,
                    channels: vec![64, 64, 128, 128, 256, 256],
                    attention_levels: vec![4],
                    ..base.networks
                },
                training: GeneratorTraining {
                    betas: Betas::Linear,
                    steps: 10_000,
                    learning_rate: 1e-4,
                    warmup_steps: 500,
                    flip: true,
                    ..base.training
                },
                sampling: GeneratorSampling {
                    scheduler: Sampler::Ddpm,
                    sampling_steps: 1000,
                    ..base.sampling
                },
                ..base
            },
            Mode::Text => {
                let base = base.into_stable_diffusion();
                Self {
                    prompts: GeneratorPrompts { prompt: PAPER_PROMPT.into(), random_tokens: true },
                    training: GeneratorTraining {
                        steps: 35_000,
                        accumulate: 4,
                        learning_rate: 1e-5,
                        ema: 0.9999,
                        ..base.training
                    },
                    sampling: GeneratorSampling { sampling_steps: 40, ..base.sampling },
                    ..base
                }
            }
            Mode::TextSegmentation => {
                let base = base.into_stable_diffusion();
                Self {
                    prompts: GeneratorPrompts {
                        prompt: "an ultrasound image of heart in {view} view".into(),
                        ..base.prompts
                    },
                    training: GeneratorTraining {
                        steps: 120_000,
                        learning_rate: 5e-6,
                        ema: 0.0,
                        ..base.training
                    },
                    sampling: GeneratorSampling { sampling_steps: 50, per_mask: 5, ..base.sampling },
                    augment: Augment { enabled: true, ..Augment::preset(super::Preset::Corrected) },
                    ..base
                }
            }
        }
    }

    /// With the networks and the noise of Stable Diffusion, which the paper's text models start from.
    fn into_stable_diffusion(self) -> Self {
        Self {
            image_size: 512,
            networks: GeneratorNetworks {
                image_space: ImageSpace::Latent,
                channels: vec![320, 640, 1280, 1280],
                attention_levels: vec![0, 1, 2],
                text_tokens: 77,
                ..self.networks
            },
            training: GeneratorTraining {
                betas: Betas::ScaledLinear,
                schedule: GeneratorSchedule::Constant,
                batch_size: 1,
                ..self.training
            },
            sampling: GeneratorSampling {
                scheduler: Sampler::UniPc,
                guidance: 7.5,
                sampling_batch: 4,
                ..self.sampling
            },
            ..self
        }
    }

    /// Whether Synecho trains it.
    pub fn is_trained(&self) -> bool {
        !matches!(self.mode, Mode::External | Mode::Inpaint) && self.source.pipeline.as_os_str().is_empty()
    }

    /// Whether each of its images is made from the mask of a real one.
    pub fn takes_masks(&self) -> bool {
        matches!(self.mode, Mode::TextSegmentation | Mode::Inpaint)
    }

    /// Whether each view and phase has a model of its own.
    pub fn has_model_per_class(&self) -> bool {
        self.mode == Mode::Unconditional && self.networks.per_class
    }

    /// Whether its images come with masks (external ones should).
    pub fn has_masks(&self) -> bool {
        self.sampling.pseudo_masks || self.takes_masks() || self.mode == Mode::External
    }
}
