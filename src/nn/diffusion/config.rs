//! Values that the configurations of several networks share, how they are read from `config.json` and
//! how they are written.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    nn::config::Config,
    vocabulary::TimeScaleShift,
};

/// The version of diffusers whose networks these are.
pub(crate) const DIFFUSERS: &str = "0.42.1";

/// What `EMAModel.save_pretrained` of diffusers adds to a network's configuration: how its weights were averaged.
const EMA_KEYS: [&str; 7] =
    ["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"];

/// An activation function: `silu` (or `swish`), `gelu`, `relu`, `mish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    #[default]
    Silu,
    Gelu,
    Relu,
    Mish,
}

impl Activation {
    const ALL: [(&str, Self); 5] = [
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("gelu", Self::Gelu),
        ("relu", Self::Relu),
        ("mish", Self::Mish),
    ];

    pub(crate) fn read(config: &Config, key: &str) -> Result<Self> {
        // Upper case is the same to upstream.
        let name = config.get(key, "silu".to_owned())?.to_lowercase();
        named(config, key, &name, &Self::ALL)
    }

    pub(crate) fn name(self) -> &'static str {
        name_of(self, &Self::ALL)
    }
}

impl TimeScaleShift {
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let key = "resnet_time_scale_shift";
        let words = Self::ALL.map(|one| (one.as_str(), one));
        named(config, key, &config.get(key, Self::Default.to_string())?, &words)
    }
}

/// What a timestep is turned into before the first linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeEmbedding {
    #[default]
    Positional,
    Fourier,
}

impl TimeEmbedding {
    const ALL: [(&str, Self); 2] = [("positional", Self::Positional), ("fourier", Self::Fourier)];

    pub(crate) fn read(config: &Config) -> Result<Self> {
        let key = "time_embedding_type";
        named(config, key, &config.get(key, "positional".to_owned())?, &Self::ALL)
    }

    pub(crate) fn name(self) -> &'static str {
        name_of(self, &Self::ALL)
    }
}

/// How an attention block's level halves or doubles the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResampleType {
    /// By a convolution.
    #[default]
    Conv,
    /// By a residual block.
    Resnet,
}

impl ResampleType {
    const ALL: [(&str, Self); 2] = [("conv", Self::Conv), ("resnet", Self::Resnet)];

    pub(crate) fn read(config: &Config, key: &str) -> Result<Self> {
        match config.get::<Option<String>>(key, None)? {
            None => Ok(Self::Conv),
            Some(name) => named(config, key, &name, &Self::ALL),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        name_of(self, &Self::ALL)
    }
}

/// What a level of a U-Net is made of beside residual blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// `DownBlock2D`, `UpBlock2D`: nothing; resampled by a convolution.
    Plain,
    /// `ResnetDownsampleBlock2D`, `ResnetUpsampleBlock2D`: nothing; resampled by a residual block.
    Resnet,
    /// `AttnDownBlock2D`, `AttnUpBlock2D`: self-attention.
    Attention,
    /// `CrossAttnDownBlock2D`, `CrossAttnUpBlock2D`: transformers that attend to the encoder's hidden
    /// states.
    CrossAttention,
}

impl BlockType {
    const DOWN: [(&str, Self); 4] = [
        ("DownBlock2D", Self::Plain),
        ("ResnetDownsampleBlock2D", Self::Resnet),
        ("AttnDownBlock2D", Self::Attention),
        ("CrossAttnDownBlock2D", Self::CrossAttention),
    ];
    const UP: [(&str, Self); 4] = [
        ("UpBlock2D", Self::Plain),
        ("ResnetUpsampleBlock2D", Self::Resnet),
        ("AttnUpBlock2D", Self::Attention),
        ("CrossAttnUpBlock2D", Self::CrossAttention),
    ];

    /// `key` is `down_block_types` or `up_block_types`; `allowed` are the types that the network has.
    pub(crate) fn read(config: &Config, key: &str, default: &[Self], allowed: &[Self]) -> Result<Vec<Self>> {
        let all = if key.starts_with("down") { Self::DOWN } else { Self::UP };
        let all: Vec<_> = all.into_iter().filter(|(_, block)| allowed.contains(block)).collect();
        match config.get::<Option<Vec<String>>>(key, None)? {
            None => Ok(default.to_vec()),
            // Names of the first versions begin with UNetRes.
            Some(names) => names
                .iter()
                .map(|name| named(config, key, name.strip_prefix("UNetRes").unwrap_or(name), &all))
                .collect(),
        }
    }

    pub(crate) fn down_names(blocks: &[Self]) -> Vec<&'static str> {
        blocks.iter().map(|&block| name_of(block, &Self::DOWN)).collect()
    }

    pub(crate) fn up_names(blocks: &[Self]) -> Vec<&'static str> {
        blocks.iter().map(|&block| name_of(block, &Self::UP)).collect()
    }
}

/// The lowest level of a text-guided U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MidBlockType {
    /// `UNetMidBlock2DCrossAttn`.
    #[default]
    CrossAttention,
    /// `UNetMidBlock2D`: one residual block.
    Plain,
}

impl MidBlockType {
    const ALL: [(&str, Self); 2] =
        [("UNetMidBlock2DCrossAttn", Self::CrossAttention), ("UNetMidBlock2D", Self::Plain)];

    pub(crate) fn read(config: &Config) -> Result<Option<Self>> {
        let key = "mid_block_type";
        let name = config.get(key, Some(Self::ALL[0].0.to_owned()))?;
        name.map(|name| named(config, key, &name, &Self::ALL)).transpose()
    }

    pub(crate) fn name(self) -> &'static str {
        name_of(self, &Self::ALL)
    }
}

/// What class labels are, and how they become a summand of the time embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassEmbed {
    /// `num_class_embeds` without a type: integers (batch,), looked up.
    Table { classes: i64 },
    /// `timestep`: numbers (batch,), embedded as timesteps are.
    Timestep,
    /// `identity`: (batch, time embedding's channels), added as they are.
    Identity,
    /// `projection`: (batch, inputs) through two linear layers.
    Projection { inputs: i64 },
    /// `simple_projection`: (batch, inputs) through one linear layer.
    SimpleProjection { inputs: i64 },
}

impl ClassEmbed {
    /// `projections`: whether the network has the two projected kinds.
    pub(crate) fn read(config: &Config, projections: bool) -> Result<Option<Self>> {
        let key = "class_embed_type";
        let classes = config.get::<Option<i64>>("num_class_embeds", None)?;
        let inputs = match projections {
            true => config.get::<Option<i64>>("projection_class_embeddings_input_dim", None)?,
            false => None,
        };
        let needed = || {
            inputs.ok_or_else(|| config.unsupported(key, "it needs `projection_class_embeddings_input_dim`"))
        };
        Ok(match config.get::<Option<String>>(key, None)?.as_deref() {
            None => classes.map(|classes| Self::Table { classes }),
            Some("timestep") => Some(Self::Timestep),
            Some("identity") => Some(Self::Identity),
            Some("projection") if projections => Some(Self::Projection { inputs: needed()? }),
            Some("simple_projection") if projections => Some(Self::SimpleProjection { inputs: needed()? }),
            Some(_) => {
                let more = if projections { ", \"projection\", \"simple_projection\"" } else { "" };
                let help = format!("supported: null, \"timestep\", \"identity\"{more}");
                return Err(config.unsupported(key, &help));
            }
        })
    }

    /// `class_embed_type`, `num_class_embeds`, `projection_class_embeddings_input_dim`.
    pub(crate) fn values(this: Option<Self>) -> [Value; 3] {
        match this {
            None => [Value::Null, Value::Null, Value::Null],
            Some(Self::Table { classes }) => [Value::Null, json!(classes), Value::Null],
            Some(Self::Timestep) => [json!("timestep"), Value::Null, Value::Null],
            Some(Self::Identity) => [json!("identity"), Value::Null, Value::Null],
            Some(Self::Projection { inputs }) => [json!("projection"), Value::Null, json!(inputs)],
            Some(Self::SimpleProjection { inputs }) => {
                [json!("simple_projection"), Value::Null, json!(inputs)]
            }
        }
    }
}

fn named<T: Copy>(config: &Config, key: &str, name: &str, all: &[(&str, T)]) -> Result<T> {
    all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(|(known, _)| format!("{known:?}")).collect();
        config.unsupported(key, &format!("supported: {}", names.join(", ")))
    })
}

fn name_of<T: PartialEq>(value: T, all: &[(&'static str, T)]) -> &'static str {
    // Every value is in its table.
    all.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrPerLevel {
    One(i64),
    Many(Vec<i64>),
}

/// A value for each of `levels` levels: one for all, or a list.
pub(crate) fn per_level(config: &Config, key: &str, default: i64, levels: usize) -> Result<Vec<i64>> {
    match config.get(key, OneOrPerLevel::One(default))? {
        OneOrPerLevel::One(value) => Ok(vec![value; levels]),
        OneOrPerLevel::Many(values) if values.len() == levels => Ok(values),
        OneOrPerLevel::Many(_) => {
            Err(config.unsupported(key, &format!("there are {levels} levels: give one number or {levels}")))
        }
    }
}

/// The inverse of [`per_level`]: one number where all are equal.
pub(crate) fn write_levels(values: &[i64]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => json!(first),
        _ => json!(values),
    }
}

/// `sample_size`: what the network was made for, (height, width); it runs at others too.
pub(crate) fn read_sample_size(config: &Config, default: Option<i64>) -> Result<Option<[i64; 2]>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Square(i64),
        Both([i64; 2]),
    }
    Ok(config.get("sample_size", default.map(Size::Square))?.map(|size| match size {
        Size::Square(side) => [side, side],
        Size::Both(both) => both,
    }))
}

pub(crate) fn write_sample_size(size: Option<[i64; 2]>) -> Value {
    match size {
        Some([height, width]) if height == width => json!(height),
        other => json!(other),
    }
}

/// An integer where the number is one, as diffusers writes it.
pub(crate) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

/// That the file is of this class, if it names one.
pub(crate) fn check_class(config: &Config, class: &str) -> Result<()> {
    config.ignore(&EMA_KEYS);
    match config.class() {
        Some(found) if found != class => {
            Err(Error::input(format!("the configuration of a {found}, not of a {class}")).at(config.file()))
        }
        _ => Ok(()),
    }
}

/// That numbers which count something are at least 1, and that there are as many blocks as levels.
pub(crate) fn check_counts(counts: &[(&str, &[i64])], levels: usize, blocks: &[(&str, usize)]) -> Result<()> {
    if levels == 0 {
        return Err(Error::input("`block_out_channels` is empty: a network has at least one level"));
    }
    for (key, values) in counts {
        if let Some(value) = values.iter().find(|value| **value < 1) {
            return Err(Error::input(format!("`{key}` holds {value}: it must be at least 1")));
        }
    }
    for (key, length) in blocks {
        if *length != levels {
            return Err(Error::input(format!(
                "`{key}` has {length} entries and `block_out_channels` {levels}: they must be as many"
            )));
        }
    }
    Ok(())
}

/// `downsample_padding`: the sizes of other paddings do not fit the way up.
pub(crate) fn check_padding(padding: i64) -> Result<()> {
    match padding {
        0 | 1 => Ok(()),
        _ => Err(Error::input(format!("`downsample_padding` = {padding} is not supported"))
            .help("supported: 0, 1")),
    }
}
