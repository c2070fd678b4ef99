//! diffusers' folders, read and written, and the three conditioning modes: a folder's networks and
//! scheduler, and how they make images together. Equal to diffusers' `DDPMPipeline`, `DDIMPipeline`, `StableDiffusionPipeline` and
//! `StableDiffusionControlNetPipeline` (0.42.1).

mod conditioning;
mod file_names;
pub mod files_read;
pub mod folder;
pub mod folder_write;
pub mod inpaint;
mod loaded_networks;
pub mod noise;
pub mod space;
pub mod training_patients;
mod weight_files;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use self::{
    conditioning::Conditioning,
    folder::PipelineFolder,
    inpaint::{Inpainting, KnownPart},
    loaded_networks::{LatentNetworks, Loading, PipelineNetworks, UnconditionalNetworks},
    noise::NoiseSource,
    space::Extras,
};
use crate::{
    error::{Error, Result},
    nn::schedulers::{Scheduler, SchedulerConfig},
    vocabulary::{Mode, NoiseLevels, Sampler},
};

/// Where a pipeline's parts are, and how they are to run.
#[derive(Debug, Clone)]
pub struct PipelineSource<'a> {
    /// A folder with `model_index.json`.
    pub pipeline: &'a Path,
    /// A ControlNet's folder, in place of the pipeline's own `controlnet/`.
    pub controlnet: Option<&'a Path>,
    /// Another scheduler than the folder's, with the folder's configuration.
    pub scheduler: Option<Sampler>,
    /// Where its steps lie, in place of what the configuration says.
    pub levels: Option<NoiseLevels>,
    /// What moves its steps, for flow matching, in place of what the configuration says.
    pub shift: Option<f64>,
    /// Of the weight files (`fp16`).
    pub variant: Option<&'a str>,
    /// f32, bf16 or f16.
    pub kind: Kind,
    pub device: Device,
}

/// What is to be made, the same for every image.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// One for each image, or one for all; none for a pipeline without text.
    pub prompts: Vec<&'a str>,
    pub negative_prompt: Option<&'a str>,
    /// Guidance scale; guidance is on above 1. An unconditional model is guided where it was trained for it,
    /// on images without their class.
    pub guidance: f64,
    /// Layers left out at the text encoder's end.
    pub clip_skip: i64,
    /// (images or 1, 3, height, width), f32 in [0, 1].
    pub control: Option<&'a Tensor>,
    pub conditioning_scale: f64,
    /// What is kept of real images, by an unconditional model that was trained by flow matching.
    pub known: Option<&'a KnownPart>,
    /// Of a class-conditional unconditional model: one for each image, or one for all.
    pub class_labels: Vec<i64>,
    /// Height and width of the images, pixels; else those that the networks were trained at, or the
    /// control image's.
    pub size: Option<[i64; 2]>,
    pub steps: usize,
    /// DDIM's.
    pub eta: f64,
}

impl Default for Request<'_> {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            prompts: Vec::new(),
            negative_prompt: None,
            guidance: 7.5,
            clip_skip: 0,
            control: None,
            conditioning_scale: 1.0,
            known: None,
            class_labels: Vec::new(),
            size: None,
            steps: 50,
            eta: 0.0,
        }
    }
}

/// A request, made ready for the networks: texts encoded, sizes known.
pub struct Prepared<'a> {
    request: &'a Request<'a>,
    scheduler: Scheduler,
    texts: Option<EncodedTexts>,
    control: Option<Tensor>,
    /// What guidance leads away from, where that is another control image.
    negative_control: Option<Tensor>,
    /// Masks (images or 1, height, width) that show in what sampling begins with, and their share of it.
    start: Option<(Tensor, f64)>,
    /// Channels, height and width of what is denoised.
    pub latent_shape: [i64; 3],
    /// The ends of prompts that were too long: the networks do not see them.
    pub cut: Vec<String>,
}

/// Encoded texts.
struct EncodedTexts {
    /// (1, tokens, width), with guidance.
    negative: Option<Tensor>,
    /// (prompts, tokens, width).
    positive: Tensor,
}

/// Networks and scheduler, loaded.
pub struct Pipeline {
    networks: PipelineNetworks,
    scheduler: SchedulerConfig,
    kind: Kind,
    device: Device,
}

const UNCONDITIONAL: [&str; 2] = ["DDPMPipeline", "DDIMPipeline"];
const TEXT: &str = "StableDiffusionPipeline";
const TEXT_CONTROL: &str = "StableDiffusionControlNetPipeline";

impl Pipeline {
    /// Loads a folder's networks, without gradients.
    ///
    /// # Errors
    /// Another pipeline class, a part that is missing, damaged or not supported.
    pub fn load(source: &PipelineSource) -> Result<Self> {
        Self::open(&Loading { source, headers_only: false })
    }

    /// That [`Pipeline::load`] would load the folder, as far as configurations and the headers of weights show; and the
    /// mode that it has.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn check(source: &PipelineSource) -> Result<Mode> {
        Self::open(&Loading { source, headers_only: true }).map(|pipeline| pipeline.mode())
    }

    fn open(loading: &Loading) -> Result<Self> {
        let source = loading.source;
        let folder = PipelineFolder::open(source.pipeline)?;
        let class = folder.class();
        let latent = [TEXT, TEXT_CONTROL].contains(&class);
        if !latent && !UNCONDITIONAL.contains(&class) {
            return Err(Error::input(format!("the pipeline class {class} is not supported"))
                .at(folder.dir())
                .help(format!("supported: {}, {TEXT}, {TEXT_CONTROL}", UNCONDITIONAL.join(", "))));
        }
        if !latent && source.controlnet.is_some() {
            return Err(Error::input(format!("a {class} takes no ControlNet"))
                .at(folder.dir())
                .help("a ControlNet goes with a text pipeline's folder; leave out --controlnet"));
        }
        let controlled = source.controlnet.is_some() || class == TEXT_CONTROL;
        let extras = Extras::read(folder.dir())?;
        let networks = match latent {
            false => PipelineNetworks::Unconditional(Box::new(UnconditionalNetworks::load(
                &folder, loading, &extras,
            )?)),
            true => PipelineNetworks::Latent(Box::new(LatentNetworks::load(
                &folder, loading, controlled, &extras,
            )?)),
        };
        let part = folder.part("scheduler")?;
        let mut config = part.config()?;
        if class == TEXT && !controlled {
            // Upstream's text pipeline mends the configurations of its early checkpoints when it is
            // built; the one with a ControlNet does not.
            config.set("steps_offset", 1.into());
            let clips = [Sampler::Ddpm, Sampler::Ddim].iter().any(|c| c.class_name() == part.class());
            if config.get("clip_sample", clips)? {
                config.set("clip_sample", false.into());
            }
        }
        // As upstream, whose DDIM pipeline turns every scheduler into DDIM.
        let chosen = source.scheduler.or((class == "DDIMPipeline").then_some(Sampler::Ddim));
        let scheduler = match chosen {
            Some(class) => SchedulerConfig::read_as(&config, class)?,
            None => SchedulerConfig::read(&config)?,
        };
        let scheduler = match source.levels {
            Some(levels) => scheduler.with_levels(levels)?,
            None => scheduler,
        };
        let scheduler = match source.shift {
            Some(shift) => scheduler.with_shift(shift)?,
            None => scheduler,
        };
        Ok(Self { networks, scheduler, kind: source.kind, device: source.device })
    }

    pub fn mode(&self) -> Mode {
        match &self.networks {
            PipelineNetworks::Unconditional(_) => Mode::Unconditional,
            PipelineNetworks::Latent(latent) if latent.controlnet.is_some() || latent.mask_channels => {
                Mode::TextSegmentation
            }
            PipelineNetworks::Latent(_) => Mode::Text,
        }
    }

    /// Classes that an unconditional model is told; 0: none.
    pub fn classes(&self) -> i64 {
        use crate::nn::diffusion::config::ClassEmbed;
        match &self.networks {
            PipelineNetworks::Unconditional(networks) => match networks.unet.config().class_embed {
                Some(ClassEmbed::Table { classes }) => networks.no_class.unwrap_or(classes),
                _ => 0,
            },
            PipelineNetworks::Latent(_) => 0,
        }
    }

    /// Whether its masks come with the ultrasound sector.
    pub fn sees_sector(&self) -> bool {
        matches!(&self.networks, PipelineNetworks::Latent(latent) if latent.sector)
    }

    pub fn scheduler(&self) -> Sampler {
        self.scheduler.class()
    }

    /// Upstream's number of steps: 1000 for DDPM without a text, else 50.
    pub fn default_steps(&self) -> usize {
        match (self.mode(), self.scheduler()) {
            (Mode::Unconditional, Sampler::Ddpm) => 1000,
            _ => 50,
        }
    }

    /// # Errors
    /// A batch of so many images would not fit any memory.
    pub fn check_batch(&self, prepared: &Prepared, images: usize) -> Result<()> {
        let scale = self.networks.space().factor();
        let [channels, height, width] = prepared.latent_shape;
        let one = (height * scale).saturating_mul(width * scale).saturating_mul(channels.max(3));
        if i64::try_from(images).unwrap_or(i64::MAX).saturating_mul(one) <= LARGEST_BATCH {
            return Ok(());
        }
        let fit = LARGEST_BATCH / one;
        Err(Error::input(format!(
            "a batch of {images} images of {} x {} pixels is too large",
            height * scale,
            width * scale
        ))
        .help(match fit {
            0 => "make smaller images: --height and --width".to_owned(),
            fit => format!("make at most {fit} at once: --batch-size {fit}"),
        }))
    }

    /// What the height and width of an image are multiples of.
    pub fn size_factor(&self) -> i64 {
        match &self.networks {
            PipelineNetworks::Unconditional(networks) => networks.size_factor(),
            PipelineNetworks::Latent(latent) => latent.scale(),
        }
    }

    /// Checks a request against the mode, encodes its texts.
    ///
    /// # Errors
    /// The request lacks what the mode needs, has what it does not take, or a size that does not fit.
    pub fn prepare<'a>(&self, request: &'a Request<'a>) -> Result<Prepared<'a>> {
        self.check_request(request)?;
        let scheduler = self.scheduled(request)?;
        let _guard = tch::no_grad_guard();
        match &self.networks {
            PipelineNetworks::Unconditional(networks) => {
                let (config, scale) = (networks.unet.config(), networks.space.factor());
                let trained = config.sample_size.map(|s| s.map(|side| side * scale));
                let size = request.size.or(trained).ok_or_else(|| {
                    Error::input("the model does not say at what size it was trained")
                        .help("give --height and --width")
                })?;
                check_size(size, self.size_factor())?;
                let latent_shape = [config.in_channels, size[0] / scale, size[1] / scale];
                Ok(Prepared {
                    request,
                    scheduler,
                    texts: None,
                    control: None,
                    negative_control: None,
                    start: None,
                    latent_shape,
                    cut: Vec::new(),
                })
            }
            PipelineNetworks::Latent(latent) => {
                let scale = latent.scale();
                let control = request.control.map(|c| c.to_device(self.device).to_kind(self.kind));
                let of_control = control.as_ref().map(|c| [c.size()[2], c.size()[3]]);
                let trained = latent.unet.config().sample_size.map(|s| s.map(|side| side * scale));
                let size = request.size.or(of_control).or(trained).ok_or_else(|| {
                    Error::input("the U-Net does not say at what size it was trained")
                        .help("give --height and --width")
                })?;
                check_size(size, scale)?;
                if of_control.is_some_and(|c| c != size) {
                    return Err(Error::failure("the control image has another size than the image"));
                }
                let (texts, cut) = self.encode(latent, request)?;
                // Of a U-Net that takes the mask as well, the input has more channels than the sample.
                let latent_shape = [latent.unet.config().out_channels, size[0] / scale, size[1] / scale];
                let mask = match &control {
                    Some(control) => Some(space::mask_of_control(control, latent.sector)?),
                    None => None,
                };
                // As the networks take masks.
                let shown = |mask: &Tensor| -> Result<Tensor> {
                    let shown = match latent.mask_channels {
                        true => space::mask_to_channels(mask, scale, latent.sector)?,
                        false => space::mask_to_control(mask, latent.sector),
                    };
                    Ok(shown.to_kind(self.kind))
                };
                let negative_control = match &mask {
                    Some(mask) if latent.drops_masks && request.guidance > 1.0 => {
                        Some(shown(&space::without_structures(mask, latent.sector))?)
                    }
                    _ => None,
                };
                let control = match &mask {
                    Some(mask) if latent.mask_channels => Some(shown(mask)?),
                    // A ControlNet is given the picture as it is.
                    _ => control,
                };
                let start = latent.mask_start.and_then(|share| Some((mask?, share)));
                Ok(Prepared {
                    request,
                    scheduler,
                    texts: Some(texts),
                    control,
                    negative_control,
                    start,
                    latent_shape,
                    cut,
                })
            }
        }
    }

    fn check_request(&self, request: &Request) -> Result<()> {
        let mode = self.mode();
        let refuse = |problem: &str, help: &str| Err(Error::input(problem).help(help));
        let text = mode != Mode::Unconditional;
        match (text, request.prompts.first(), request.negative_prompt) {
            (true, None, _) => {
                return refuse(
                    "this pipeline makes images from a text",
                    "give --prompt TEXT; \"\" is one too",
                );
            }
            (false, Some(_), _) | (false, _, Some(_)) => {
                return refuse("this pipeline takes no text: it is unconditional", "leave out the prompts");
            }
            _ => {}
        }
        match (mode == Mode::TextSegmentation, request.control.is_some()) {
            (true, false) => {
                return refuse(
                    "this pipeline has a ControlNet: it needs a control image",
                    "give --control-image PNG, or --control-mask PNG for a mask of class indices",
                );
            }
            (false, true) => {
                return refuse(
                    "a control image, but no ControlNet",
                    "name the ControlNet's folder: --controlnet DIR",
                );
            }
            _ => {}
        }
        if !request.guidance.is_finite() || request.guidance < 0.0 {
            return refuse("the guidance scale must be a number from 0", "7.5 is usual; 1 or less is none");
        }
        if !request.conditioning_scale.is_finite() {
            return refuse("the conditioning scale must be a number", "1 is usual");
        }
        if let PipelineNetworks::Unconditional(networks) = &self.networks {
            let classes = networks.unet.config().class_embed.is_some();
            if classes == request.class_labels.is_empty() {
                return match classes {
                    true => refuse("the model is class-conditional", "give --class-label N"),
                    false => refuse("the model knows no classes", "leave out --class-label"),
                };
            }
        } else if !request.class_labels.is_empty() {
            return refuse("a text pipeline takes no class label", "leave out --class-label");
        }
        Ok(())
    }

    /// The scheduler, with the request's steps chosen.
    fn scheduled(&self, request: &Request) -> Result<Scheduler> {
        let mut scheduler = Scheduler::new(&self.scheduler)?;
        if request.eta != 0.0 {
            scheduler.set_eta(request.eta, false)?;
        }
        scheduler.set_timesteps(request.steps)?;
        Ok(scheduler)
    }

    fn encode(&self, latent: &LatentNetworks, request: &Request) -> Result<(EncodedTexts, Vec<String>)> {
        let guided = request.guidance > 1.0;
        let negative = guided.then(|| request.negative_prompt.unwrap_or_default());
        let (mut ids, mut cut) = (Vec::new(), Vec::new());
        for text in negative.iter().chain(&request.prompts) {
            let encoded = latent.tokenizer.encode(text)?;
            ids.extend(encoded.ids);
            cut.extend(encoded.cut);
        }
        let (prompts, first) = (request.prompts.len() as i64, i64::from(guided));
        let ids = Tensor::from_slice(&ids).f_view([first + prompts, -1])?.to_device(self.device);
        let all = latent.text_encoder.forward_skipping(&ids, request.clip_skip)?;
        let negative = guided.then(|| all.narrow(0, 0, 1));
        Ok((EncodedTexts { negative, positive: all.narrow(0, first, prompts) }, cut))
    }

    /// Makes one batch: images (n, channels, height, width), f32 in [0, 1], on the CPU. `latents` (n, channels,
    /// height, width) of [`Prepared::latent_shape`] take the place of the starting noise: as that they have the
    /// standard deviation 1, and are scaled to what the scheduler begins with. `tick` is called after each step with the steps done and all steps.
    ///
    /// # Errors
    /// Latents of another shape, values that are not finite, or what libtorch refuses.
    pub fn sample(
        &self,
        prepared: &mut Prepared,
        noise: &mut dyn NoiseSource,
        latents: Option<&Tensor>,
        tick: &dyn Fn(usize, usize),
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        // Forgets the batch before.
        prepared.scheduler.set_timesteps(prepared.request.steps)?;
        let mut sample = match latents {
            Some(latents) => {
                if latents.dim() != 4 || latents.size()[1..] != prepared.latent_shape {
                    return Err(Error::input(format!("latents of {:?}", latents.size())).help(format!(
                        "this pipeline needs {:?} for each image: channels, height, width",
                        prepared.latent_shape
                    )));
                }
                latents.shallow_clone()
            }
            None => noise.starting(&prepared.latent_shape)?,
        };
        if let Some((masks, share)) = &prepared.start {
            sample = self.networks.space().start_at_mask(&sample.to_device(self.device), masks, *share)?;
        }
        // Upstream's unconditional pipelines leave out both scalings, and make noise of what Euler's and Heun's
        // schedulers sample.
        let conditioning = Conditioning::new(self, prepared, sample.size()[0])?;
        let scheduler = &mut prepared.scheduler;
        sample = sample.to_device(self.device).to_kind(self.kind) * scheduler.init_noise_sigma();
        let timesteps = scheduler.timesteps().to_vec();
        let (kind, device) = (self.kind, self.device);
        if let Some(known) = prepared.request.known {
            if scheduler.class() != Sampler::FlowEuler {
                return Err(Error::input(format!(
                    "inpainting samples with flow-euler, not with {}",
                    scheduler.class()
                ))
                .help("use a model that was trained by flow matching"));
            }
            let [channels, ..] = prepared.latent_shape;
            let trained = scheduler.num_train_timesteps() as f64;
            let space = self.networks.space();
            let inpainting = Inpainting::new(&conditioning, known, space, channels, &timesteps, trained)?;
            sample = inpainting.sample(sample, noise, tick)?;
            return self.decoded(&sample);
        }
        for (done, &timestep) in timesteps.iter().enumerate() {
            let predicted = conditioning.predict(&scheduler.scale_input(&sample)?, timestep)?;
            sample = scheduler.step(&predicted, timestep, &sample, &mut |shape: &[i64]| {
                Ok(noise.next(shape)?.to_device(device).to_kind(kind))
            })?;
            tick(done + 1, timesteps.len());
        }
        self.decoded(&sample)
    }

    /// Images in [0, 1], f32, on the CPU.
    fn decoded(&self, sample: &Tensor) -> Result<Tensor> {
        let sample = self.networks.space().decode(sample)?;
        if sample.isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::failure("the networks gave values that are not finite").help(
                "use --dtype f32, another scheduler or fewer steps, and look whether the weights are whole",
            ));
        }
        Ok((sample / 2.0 + 0.5).clamp(0.0, 1.0).to_kind(Kind::Float).to_device(Device::Cpu))
    }
}

/// Pixels along a side, at most.
const LARGEST_SIDE: i64 = 16_384;

/// Numbers in a batch of images, at most: 8 GiB in f32.
const LARGEST_BATCH: i64 = 1 << 31;

fn check_size([height, width]: [i64; 2], factor: i64) -> Result<()> {
    if height.max(width) > LARGEST_SIDE {
        return Err(Error::input(format!("images of {height} x {width} pixels are too large"))
            .help(format!("at most {LARGEST_SIDE} pixels a side: give --height and --width, or mend `sample_size` in the U-Net's config.json")));
    }
    if height > 0 && width > 0 && height % factor == 0 && width % factor == 0 {
        return Ok(());
    }
    Err(Error::input(format!("images of {height} x {width} pixels do not fit the networks"))
        .help(format!("height and width must be multiples of {factor}")))
}
