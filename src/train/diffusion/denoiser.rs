//! The networks of a generator: built from scratch or taken from a folder, and what they predict in training.

use std::collections::HashMap;

use tch::{Kind, Tensor, nn::VarStore};

use super::{
    bases::{
        TextBase, base_space, blocks, check_trainable, freeze, latent_of, new_latent, new_space,
        open_base_of, text_unet,
    },
    batches::{DiffusionBatch, laid_out},
    inputs::NetworkInputs,
    objective::new_scheduler,
    texts::{Texts, freeze_pooling},
};
use crate::{
    error::{Error, Result},
    experiment::{Generator, MaskConditioning},
    nn::{
        controlnet::{ControlNetConfig, ControlNetModel, copy_from_unet},
        diffusion::config::{BlockType, ClassEmbed},
        init,
        schedulers::SchedulerConfig,
        unet2d::{UNet2DConfig, UNet2DModel},
        unet2d_condition::{UNet2DConditionConfig, UNet2DConditionModel},
    },
    pipeline::{
        folder::PipelineFolder,
        space::{Extras, Space, mask_channels, mask_to_channels, mask_to_control, without_structures},
    },
    random,
    train::channels_last,
    vocabulary::Mode,
};

/// Parts of a text pipeline, in the order in which they are written.
pub(super) const TEXT_PARTS: [&str; 3] = ["tokenizer", "text_encoder", "vae"];

/// A generator's networks in training.
pub(super) struct Denoiser {
    pub space: Space,
    pub extras: Extras,
    /// Of the noise that was and is added.
    pub scheduler: SchedulerConfig,
    /// Channels of the images.
    pub image_channels: i64,
    /// Channels, height and width of what is denoised.
    pub latent: [i64; 3],
    denoiser: DenoiserNetworks,
    /// Trained variable stores and the parts that they are.
    trained: Vec<(&'static str, VarStore)>,
    /// Frozen ones: they own the weights of networks above.
    frozen: Vec<VarStore>,
    /// Configurations by part, of the trained networks.
    pub configs: Vec<(&'static str, serde_json::Value)>,
}

enum DenoiserNetworks {
    Unconditional { unet: Box<UNet2DModel>, classes: bool, no_class: Option<i64> },
    Text { unet: Box<UNet2DConditionModel>, texts: Texts },
    ControlNet { controlnet: Box<ControlNetModel>, unet: Box<UNet2DConditionModel>, texts: Texts },
    MaskChannels { unet: Box<UNet2DConditionModel>, texts: Texts },
}

impl Denoiser {
    /// # Errors
    /// The base does not fit the mode, or the networks do not fit the image size.
    pub fn new(inputs: &NetworkInputs) -> Result<Self> {
        let this = match inputs.settings.mode {
            Mode::Unconditional => Self::unconditional(inputs),
            Mode::Text => Self::text(inputs),
            Mode::TextSegmentation => Self::text_segmentation(inputs),
            mode @ (Mode::Inpaint | Mode::External) => {
                Err(Error::failure(format!("nothing is trained in mode {mode}")))
            }
        }?;
        let (size, fold) = (inputs.settings.image_size as i64, this.space.factor());
        let halved = this.halved();
        if size % (fold * halved) != 0 {
            return Err(Error::input(format!(
                "images of {size} px cannot be halved often enough for this network"
            ))
            .help(format!("set image_size to a multiple of {}", fold * halved)));
        }
        Ok(this)
    }

    fn halved(&self) -> i64 {
        match &self.denoiser {
            DenoiserNetworks::Unconditional { unet, .. } => unet.config().size_factor(),
            DenoiserNetworks::Text { unet, .. }
            | DenoiserNetworks::ControlNet { unet, .. }
            | DenoiserNetworks::MaskChannels { unet, .. } => {
                1 << unet.config().block_out_channels.len().saturating_sub(1).min(62)
            }
        }
    }

    fn unconditional(inputs: &NetworkInputs) -> Result<Self> {
        let settings = inputs.settings;
        let (config, extras, space, scheduler) = match inputs.base {
            None => {
                let (extras, space) = new_space(inputs)?;
                let (channels, side) = new_latent(inputs, &space);
                let config = UNet2DConfig {
                    sample_size: Some([side, side]),
                    in_channels: channels,
                    out_channels: channels,
                    down_block_types: blocks(&settings.networks, BlockType::Attention, false),
                    up_block_types: blocks(&settings.networks, BlockType::Attention, true),
                    block_out_channels: settings.networks.channels.clone(),
                    layers_per_block: settings.networks.layers_per_block,
                    attention_head_dim: Some(settings.networks.attention_head_dim),
                    norm_num_groups: settings.networks.norm_num_groups,
                    resnet_time_scale_shift: settings.networks.resnet_time_scale_shift,
                    class_embed: (!inputs.classes.is_empty()).then_some(ClassEmbed::Table {
                        classes: inputs.classes.len() as i64
                            + i64::from(settings.training.prompt_dropout > 0.0),
                    }),
                    ..UNet2DConfig::default()
                };
                (config, extras, space, new_scheduler(settings)?)
            }
            Some(dir) => {
                let folder = open_base_of(dir, Mode::Unconditional)?;
                let config = UNet2DConfig::read(&folder.part("unet")?.config()?)?;
                if config.class_embed.is_some() == inputs.classes.is_empty() {
                    return Err(Error::input(
                        "only one of the base and this generator takes the class as an input",
                    )
                    .at(dir)
                    .help("set `per_class` as it was for the base"));
                }
                let (extras, space) = base_space(&folder, false, inputs)?;
                (config, extras, space, SchedulerConfig::read(&folder.part("scheduler")?.config()?)?)
            }
        };
        check_trainable(config.dropout, config.time_embedding_type)?;
        let extras = Extras {
            classes: inputs.classes.iter().map(|c| (*c).to_owned()).collect(),
            stock: extras.stock && inputs.classes.is_empty(),
            ..extras
        };
        let no_class = extras.no_class(config.class_embed);
        if settings.training.prompt_dropout > 0.0 && no_class.is_none() && !inputs.classes.is_empty() {
            return Err(Error::input("the base has no label for images whose class is left out")
                .help("set prompt_dropout = 0"));
        }
        let vs = VarStore::new(inputs.device);
        let unet = Box::new(UNet2DModel::new(&vs.root(), &config)?);
        init::fill(&vs, random::seed(inputs.seed, "unet", &[]), None);
        if let Some(dir) = inputs.base {
            PipelineFolder::open(dir)?.part("unet")?.load_weights(&vs, None)?;
        }
        Ok(Self {
            image_channels: space.image_channels(config.out_channels),
            latent: latent_of(config.out_channels, settings, &space),
            space,
            extras,
            scheduler,
            denoiser: DenoiserNetworks::Unconditional { unet, classes: !inputs.classes.is_empty(), no_class },
            trained: vec![("unet", vs)],
            frozen: Vec::new(),
            configs: vec![("unet", config.to_json())],
        })
    }

    fn text(inputs: &NetworkInputs) -> Result<Self> {
        let settings = inputs.settings;
        let vs = VarStore::new(inputs.device);
        let Some(dir) = inputs.base else { return Self::from_scratch(inputs, vs, false) };
        let base = TextBase::open(dir, inputs)?;
        let unet = Box::new(UNet2DConditionModel::new(&vs.root(), &base.unet)?);
        base.folder.part("unet")?.load_weights(&vs, None)?;
        freeze_pooling(&vs);
        Ok(Self {
            image_channels: base.space.image_channels(base.unet.out_channels),
            latent: latent_of(base.unet.out_channels, settings, &base.space),
            space: base.space,
            extras: base.extras,
            scheduler: base.scheduler,
            denoiser: DenoiserNetworks::Text { unet, texts: base.texts },
            trained: vec![("unet", vs)],
            frozen: base.frozen,
            configs: vec![("unet", base.unet.to_json())],
        })
    }

    /// A text model, or one that is given the mask as well.
    fn from_scratch(inputs: &NetworkInputs, vs: VarStore, masked: bool) -> Result<Self> {
        let (extras, space) = new_space(inputs)?;
        let (channels, _) = new_latent(inputs, &space);
        let sector = masked && inputs.settings.networks.sector;
        let further = if masked { mask_channels(space.factor(), sector) } else { 0 };
        let config = text_unet(inputs.settings, &space, [channels + further, channels]);
        let unet = Box::new(UNet2DConditionModel::new(&vs.root(), &config)?);
        init::fill(&vs, random::seed(inputs.seed, "unet", &[]), None);
        let (texts, text_vs, text_config) = Texts::from_scratch(inputs, &unet, &vs)?;
        Ok(Self {
            image_channels: space.image_channels(channels),
            latent: latent_of(channels, inputs.settings, &space),
            space,
            extras: Extras {
                mask_channels: masked,
                sector,
                drops_masks: masked && inputs.settings.training.drop_masks,
                mask_start: mask_start(inputs.settings).filter(|_| masked),
                ..extras
            },
            scheduler: new_scheduler(inputs.settings)?,
            denoiser: match masked {
                true => DenoiserNetworks::MaskChannels { unet, texts },
                false => DenoiserNetworks::Text { unet, texts },
            },
            trained: vec![("unet", vs), ("text_encoder", text_vs)],
            frozen: Vec::new(),
            configs: vec![("unet", config.to_json()), ("text_encoder", text_config)],
        })
    }

    fn text_segmentation(inputs: &NetworkInputs) -> Result<Self> {
        let settings = inputs.settings;
        let vs = VarStore::new(inputs.device);
        if settings.networks.conditioning == MaskConditioning::Channels {
            return Self::mask_channels(inputs, vs);
        }
        let Some(dir) = inputs.base else { return Self::joint_controlnet(inputs, vs) };
        let mut base = TextBase::open(dir, inputs)?;
        let mut frozen = VarStore::new(inputs.device);
        let unet = Box::new(UNet2DConditionModel::new(&frozen.root(), &base.unet)?);
        base.folder.part("unet")?.load_weights(&frozen, None)?;
        let (controlnet, config) = new_controlnet(inputs, &base.unet, &base.space, &vs)?;
        copy_from_unet(&vs, &frozen)?;
        freeze_pooling(&vs);
        freeze(&mut frozen, inputs.kind);
        base.frozen.push(frozen);
        Ok(Self {
            image_channels: base.space.image_channels(base.unet.out_channels),
            latent: latent_of(base.unet.out_channels, settings, &base.space),
            space: base.space,
            extras: with_mask(base.extras, settings),
            scheduler: base.scheduler,
            denoiser: DenoiserNetworks::ControlNet { controlnet, unet, texts: base.texts },
            trained: vec![("controlnet", vs)],
            frozen: base.frozen,
            configs: vec![("controlnet", config.to_json())],
        })
    }

    /// A text model from scratch and its ControlNet, trained together (MOTFM, arXiv 2503.00266).
    fn joint_controlnet(inputs: &NetworkInputs, vs: VarStore) -> Result<Self> {
        let mut this = Self::from_scratch(inputs, VarStore::new(inputs.device), false)?;
        let DenoiserNetworks::Text { unet, texts } = this.denoiser else {
            return Err(Error::failure("a text model without its U-Net"));
        };
        let (controlnet, config) = new_controlnet(inputs, unet.config(), &this.space, &vs)?;
        if let Some((_, unet_vs)) = this.trained.iter().find(|(part, _)| *part == "unet") {
            copy_from_unet(&vs, unet_vs)?;
        }
        freeze_pooling(&vs);
        this.extras = with_mask(this.extras, inputs.settings);
        this.denoiser = DenoiserNetworks::ControlNet { controlnet, unet, texts };
        this.trained.push(("controlnet", vs));
        this.configs.push(("controlnet", config.to_json()));
        Ok(this)
    }

    /// From a text model, whose first convolution gets more inputs that start at zero; or from scratch.
    fn mask_channels(inputs: &NetworkInputs, vs: VarStore) -> Result<Self> {
        let settings = inputs.settings;
        let Some(dir) = inputs.base else { return Self::from_scratch(inputs, vs, true) };
        let base = TextBase::open(dir, inputs)?;
        let fold = base.space.factor();
        let config = UNet2DConditionConfig {
            in_channels: base.unet.in_channels + mask_channels(fold, settings.networks.sector),
            ..base.unet.clone()
        };
        let unet = Box::new(UNet2DConditionModel::new(&vs.root(), &config)?);
        let plain = VarStore::new(inputs.device);
        UNet2DConditionModel::new(&plain.root(), &base.unet)?;
        base.folder.part("unet")?.load_weights(&plain, None)?;
        let from = plain.variables();
        for (name, mut variable) in vs.variables() {
            let Some(old) = from.get(&name) else { continue };
            tch::no_grad(|| match name == "conv_in.weight" {
                false => variable.f_copy_(old),
                true => {
                    let _ = variable.f_zero_()?;
                    variable.f_narrow(1, 0, old.size()[1])?.f_copy_(old)
                }
            })?;
        }
        freeze_pooling(&vs);
        Ok(Self {
            image_channels: base.space.image_channels(base.unet.out_channels),
            latent: latent_of(base.unet.out_channels, settings, &base.space),
            space: base.space,
            extras: Extras { mask_channels: true, ..with_mask(base.extras, settings) },
            scheduler: base.scheduler,
            denoiser: DenoiserNetworks::MaskChannels { unet, texts: base.texts },
            trained: vec![("unet", vs)],
            frozen: base.frozen,
            configs: vec![("unet", config.to_json())],
        })
    }

    /// Variables that are trained, by part and name.
    pub fn variables(&self) -> HashMap<String, Tensor> {
        let of = |(part, vs): &(&str, VarStore)| {
            let part = (*part).to_owned();
            vs.variables().into_iter().map(move |(name, v)| (format!("{part}/{name}"), v)).collect::<Vec<_>>()
        };
        self.trained.iter().flat_map(of).collect()
    }

    /// Weights of all networks, trained or not.
    pub fn parameters(&self) -> u64 {
        let stores = self.trained.iter().map(|(_, vs)| vs).chain(&self.frozen);
        stores.flat_map(|vs| vs.variables().into_values()).map(|v| v.numel() as u64).sum()
    }

    /// The masks that the networks see: images without their prompt may go without their structures.
    fn masks_seen(&self, batch: &DiffusionBatch) -> Result<Tensor> {
        let masks = batch.masks.as_ref().ok_or_else(|| Error::failure("a batch without masks"))?;
        if !self.extras.drops_masks || !batch.dropped.contains(&true) {
            return Ok(masks.shallow_clone());
        }
        let dropped = Tensor::f_from_slice(&batch.dropped)?.f_view([-1, 1, 1])?.to_device(masks.device());
        Ok(without_structures(masks, self.extras.sector).f_where_self(&dropped, masks)?)
    }

    /// What the networks predict for noisy samples (batch, channels, height, width), f32.
    pub fn predict(&self, noisy: &Tensor, batch: &DiffusionBatch, kind: Kind) -> Result<Tensor> {
        let device = noisy.device();
        let times = Tensor::from_slice(&batch.times).to_kind(Kind::Float).to_device(device);
        let noisy = laid_out(&noisy.to_kind(kind));
        let masks = || self.masks_seen(batch);
        let predicted = match &self.denoiser {
            DenoiserNetworks::Unconditional { unet, classes, no_class } => {
                let told = |(&label, &dropped): (&i64, &bool)| no_class.filter(|_| dropped).unwrap_or(label);
                let labels: Vec<i64> = batch.labels.iter().zip(&batch.dropped).map(told).collect();
                let labels = classes.then(|| Tensor::from_slice(&labels).to_device(device));
                unet.forward(&noisy, &times, labels.as_ref())?
            }
            DenoiserNetworks::Text { unet, texts } => {
                unet.forward(&noisy, &times, &texts.embed(batch, kind)?, None, None, None)?
            }
            DenoiserNetworks::ControlNet { controlnet, unet, texts } => {
                // Convolutions of few channels, without norms: these are faster with channels innermost.
                let control = mask_to_control(&masks()?, self.extras.sector).to_kind(kind);
                let control = channels_last(&control);
                let texts = texts.embed(batch, kind)?;
                let (down, mid) = controlnet.forward(&noisy, &times, &texts, &control, 1.0)?;
                unet.forward(&noisy, &times, &texts, None, Some(&down), Some(&mid))?
            }
            DenoiserNetworks::MaskChannels { unet, texts } => {
                let mask =
                    mask_to_channels(&masks()?, self.space.factor(), self.extras.sector)?.to_kind(kind);
                let input = laid_out(&Tensor::f_cat(&[&noisy, &mask], 1)?);
                unet.forward(&input, &times, &texts.embed(batch, kind)?, None, None, None)?
            }
        };
        Ok(predicted.to_kind(Kind::Float))
    }
}

/// A ControlNet beside `unet` with the weights that it begins with, and its configuration.
fn new_controlnet(
    inputs: &NetworkInputs,
    unet: &UNet2DConditionConfig,
    space: &Space,
    vs: &VarStore,
) -> Result<(Box<ControlNetModel>, ControlNetConfig)> {
    let mut config = ControlNetConfig::from_unet(unet)?;
    // Each further level of the mask's embedding halves it: as often as the space folds.
    let fold = space.factor();
    if !(fold as u64).is_power_of_two() {
        return Err(Error::input(format!("a ControlNet cannot follow a fold of {fold}"))
            .help("use a power of two for `patch`"));
    }
    let levels = fold.ilog2() as usize + 1;
    let stock = &config.conditioning_embedding_out_channels;
    config.conditioning_embedding_out_channels = match levels == stock.len() {
        true => stock.clone(),
        false => (0..levels).map(|i| 16i64 << i.min(4)).collect(),
    };
    let controlnet = Box::new(ControlNetModel::new(&vs.root(), &config)?);
    init::fill(vs, random::seed(inputs.seed, "controlnet", &[]), None);
    Ok((controlnet, config))
}

/// Share of the mask in what sampling begins with, where there is one.
fn mask_start(settings: &Generator) -> Option<f64> {
    Some(settings.training.mask_start).filter(|share| *share > 0.0)
}

/// What a base's folder says, and how its networks see the mask from now on. A stock base's folder says nothing: what
/// is made of it may have to.
fn with_mask(base: Extras, settings: &Generator) -> Extras {
    let (sector, mask_start) = (settings.networks.sector, mask_start(settings));
    let drops_masks = settings.training.drop_masks;
    let stock = base.stock
        && settings.networks.conditioning == MaskConditioning::Controlnet
        && !sector
        && !drops_masks
        && mask_start.is_none();
    Extras { sector, drops_masks, mask_start, stock, ..base }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::{
        experiment::{Generator, GeneratorNetworks, GeneratorPreset},
        vocabulary::Label,
    };

    fn batch(labels: [i64; 2], dropped: [bool; 2]) -> DiffusionBatch {
        DiffusionBatch {
            images: Tensor::zeros([2, 1, 16, 16], (Kind::Float, Device::Cpu)),
            masks: None,
            unchanged: true,
            chosen: vec![0, 1],
            dropped: dropped.to_vec(),
            labels: labels.to_vec(),
            offset: 0,
            times: vec![500.0, 900.0],
            noise: Tensor::zeros([2, 4, 8, 8], (Kind::Float, Device::Cpu)),
            posterior_noise: None,
        }
    }

    #[test]
    fn an_image_whose_class_is_left_out_is_told_none() {
        let preset = Generator::preset(GeneratorPreset::Cpu, Mode::Unconditional);
        let settings = Generator {
            image_size: 16,
            networks: GeneratorNetworks {
                patch: 2,
                channels: vec![16],
                attention_levels: vec![],
                attention_head_dim: 8,
                ..preset.networks
            },
            ..preset
        };
        let work = tempfile::tempdir().unwrap();
        let of = |prompt_dropout: f64| {
            let mut settings = settings.clone();
            settings.training.prompt_dropout = prompt_dropout;
            let inputs = NetworkInputs {
                settings: &settings,
                base: None,
                prompts: &[],
                train_prompts: 0,
                autoencoder: None,
                classes: Label::ViewPhase.classes(),
                work: work.path(),
                kind: Kind::Float,
                device: Device::Cpu,
                seed: 1,
            };
            Denoiser::new(&inputs).unwrap()
        };
        let noisy = Tensor::randn([2, 4, 8, 8], (Kind::Float, Device::Cpu));
        let apart = |networks: &Denoiser, a: DiffusionBatch, b: DiffusionBatch| {
            let predict = |batch| networks.predict(&noisy, &batch, Kind::Float).unwrap();
            let apart: Tensor = predict(a) - predict(b);
            [0, 1].map(|i| apart.get(i).abs().max().double_value(&[]))
        };
        let networks = of(0.1);
        let [first, second] = apart(&networks, batch([0, 3], [true, false]), batch([2, 1], [true, false]));
        assert!(first == 0.0 && second > 1e-4, "{first} {second}");
        // No class is none of the classes.
        for label in 0..4 {
            let [first, _] =
                apart(&networks, batch([label, 3], [false, false]), batch([label, 3], [true, false]));
            assert!(first > 1e-4, "{label}: {first}");
        }
        // A model that is always told it has no such label.
        assert_eq!(of(0.0).extras.no_class(Some(ClassEmbed::Table { classes: 4 })), None);
    }
}
