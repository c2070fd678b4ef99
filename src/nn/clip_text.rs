//! CLIP's text encoder: `CLIPTextModel` of transformers (models/clip/modeling_clip.py, 5.23.0).
//!
//! Variable paths are those of transformers 4, which version 5 and diffusers read as well:
//! `text_model.embeddings.token_embedding.weight`, `text_model.encoder.layers.0.mlp.fc1.bias`, …
//! (version 5 itself writes them without `text_model.`; a folder's reader accepts both).

use serde_json::{Value, json};
use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use super::{config::Config, diffusion::layers::of_type};
use crate::error::{Error, Result};

/// The activation between the two linear layers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipActivation {
    /// x * sigmoid(1.702 x): OpenAI's CLIP, Stable Diffusion 1.x.
    QuickGelu,
    /// x * Phi(x), by the error function: OpenCLIP, Stable Diffusion 2.x.
    Gelu,
}

/// `CLIPTextConfig` of transformers (models/clip/configuration_clip.py).
#[derive(Debug, Clone, PartialEq)]
pub struct ClipTextConfig {
    /// Tokens known to the embedding; ids are in 0..`vocab_size`.
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    /// Layers; at least one.
    pub num_hidden_layers: i64,
    /// Divides `hidden_size`.
    pub num_attention_heads: i64,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: i64,
    pub hidden_act: ClipActivation,
    pub layer_norm_eps: f64,
    /// What the pooled output is taken at; 2 in configurations of old, where it means the highest id.
    pub eos_token_id: Option<i64>,
}

/// Values that decide nothing of what is computed here: training, bookkeeping, the form of the output.
const IGNORED: &[&str] = &[
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dropout",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "prefix",
    "problem_type",
    "projection_dim",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
];

impl ClipTextConfig {
    /// Reads `text_encoder/config.json`.
    ///
    /// # Errors
    /// A value of the wrong type, one that no text encoder can have, or a key that is not known here.
    pub fn read(config: &Config) -> Result<Self> {
        config.only("model_type", &["clip_text_model"])?;
        for key in ["is_encoder_decoder", "is_decoder", "add_cross_attention"] {
            config.only(key, &[false])?;
        }
        config.only("pruned_heads", &[serde_json::json!({})])?;
        config.only("use_attention_mask", &[Value::from(false), Value::Null])?;
        config.ignore(IGNORED);
        let read = Self {
            vocab_size: config.get("vocab_size", 49408)?,
            hidden_size: config.get("hidden_size", 512)?,
            intermediate_size: config.get("intermediate_size", 2048)?,
            num_hidden_layers: config.get("num_hidden_layers", 12)?,
            num_attention_heads: config.get("num_attention_heads", 8)?,
            max_position_embeddings: config.get("max_position_embeddings", 77)?,
            hidden_act: match config.get("hidden_act", "quick_gelu".to_owned())?.as_str() {
                "quick_gelu" => ClipActivation::QuickGelu,
                "gelu" => ClipActivation::Gelu,
                _ => return Err(config.unsupported("hidden_act", "supported: quick_gelu, gelu")),
            },
            layer_norm_eps: config.get("layer_norm_eps", 1e-5)?,
            eos_token_id: config.get("eos_token_id", Some(49407))?,
        };
        config.finish()?;
        read.check().map_err(|e| e.at(config.file()))?;
        Ok(read)
    }

    /// What `read` reads, as transformers 5 would write it.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": match self.hidden_act {
                ClipActivation::QuickGelu => "quick_gelu",
                ClipActivation::Gelu => "gelu",
            },
            "layer_norm_eps": self.layer_norm_eps,
            "eos_token_id": self.eos_token_id,
        })
    }

    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value < 1 {
                return Err(Error::input(format!("`{name}` is {value}")).help("it must be at least 1"));
            }
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            return Err(Error::input(format!(
                "`hidden_size` {} is no multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            )));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ClipLinear {
    weight: Tensor,
    bias: Tensor,
}

impl ClipLinear {
    fn new(vs: &Path, cin: i64, cout: i64) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[cout, cin], Init::Const(0.0))?,
            bias: vs.f_var("bias", &[cout], Init::Const(0.0))?,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(xs.f_linear(&self.weight, Some(&self.bias))?)
    }
}

#[derive(Debug)]
struct ClipLayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl ClipLayerNorm {
    fn new(vs: &Path, config: &ClipTextConfig) -> Result<Self> {
        Ok(Self {
            weight: vs.f_var("weight", &[config.hidden_size], Init::Const(1.0))?,
            bias: vs.f_var("bias", &[config.hidden_size], Init::Const(0.0))?,
            eps: config.layer_norm_eps,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (of_type(&self.weight, xs), of_type(&self.bias, xs));
        Ok(xs.f_layer_norm(self.weight.size(), Some(weight), Some(bias), self.eps, true)?)
    }
}

#[derive(Debug)]
struct ClipAttention {
    q_proj: ClipLinear,
    k_proj: ClipLinear,
    v_proj: ClipLinear,
    out_proj: ClipLinear,
    heads: i64,
}

impl ClipAttention {
    fn new(vs: &Path, config: &ClipTextConfig) -> Result<Self> {
        let linear = |name: &str| ClipLinear::new(&(vs / name), config.hidden_size, config.hidden_size);
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = xs.size3()?;
        let heads = |projection: &ClipLinear| -> Result<Tensor> {
            let ys = projection.forward(xs)?;
            Ok(ys.f_view([batch, length, self.heads, width / self.heads])?.f_transpose(1, 2)?)
        };
        let (q, k, v) = (heads(&self.q_proj)?, heads(&self.k_proj)?, heads(&self.v_proj)?);
        // Causal, and nothing else: padding is attended to, as in Stable Diffusion's own use of CLIP.
        let ys = Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, false)?;
        self.out_proj.forward(&ys.f_transpose(1, 2)?.f_reshape([batch, length, width])?)
    }
}

#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: ClipLayerNorm,
    self_attn: ClipAttention,
    layer_norm2: ClipLayerNorm,
    fc1: ClipLinear,
    fc2: ClipLinear,
    hidden_act: ClipActivation,
}

impl EncoderLayer {
    fn new(vs: &Path, config: &ClipTextConfig) -> Result<Self> {
        let mlp = vs / "mlp";
        Ok(Self {
            layer_norm1: ClipLayerNorm::new(&(vs / "layer_norm1"), config)?,
            self_attn: ClipAttention::new(&(vs / "self_attn"), config)?,
            layer_norm2: ClipLayerNorm::new(&(vs / "layer_norm2"), config)?,
            fc1: ClipLinear::new(&(&mlp / "fc1"), config.hidden_size, config.intermediate_size)?,
            fc2: ClipLinear::new(&(&mlp / "fc2"), config.intermediate_size, config.hidden_size)?,
            hidden_act: config.hidden_act,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = xs.f_add(&self.self_attn.forward(&self.layer_norm1.forward(xs)?)?)?;
        let ys = self.fc1.forward(&self.layer_norm2.forward(&xs)?)?;
        let ys = match self.hidden_act {
            ClipActivation::QuickGelu => ys.f_mul(&ys.f_mul_scalar(1.702)?.f_sigmoid()?)?,
            ClipActivation::Gelu => ys.f_gelu("none")?,
        };
        Ok(xs.f_add(&self.fc2.forward(&ys)?)?)
    }
}

/// The text encoder: token ids (batch, length) to hidden states (batch, length, `hidden_size`).
#[derive(Debug)]
pub struct ClipTextModel {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: ClipLayerNorm,
    eos_token_id: Option<i64>,
}

impl ClipTextModel {
    /// # Errors
    /// A configuration that [`ClipTextConfig::read`] would refuse.
    pub fn new(vs: &Path, config: &ClipTextConfig) -> Result<Self> {
        config.check()?;
        let vs = vs / "text_model";
        let (embeddings, encoder) = (&vs / "embeddings", &vs / "encoder" / "layers");
        let embedding = |name: &str, rows| {
            (&embeddings / name).f_var("weight", &[rows, config.hidden_size], Init::Const(0.0))
        };
        Ok(Self {
            token_embedding: embedding("token_embedding", config.vocab_size)?,
            position_embedding: embedding("position_embedding", config.max_position_embeddings)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| EncoderLayer::new(&(&encoder / i), config))
                .collect::<Result<_>>()?,
            final_layer_norm: ClipLayerNorm::new(&(&vs / "final_layer_norm"), config)?,
            eos_token_id: config.eos_token_id,
        })
    }

    /// The last hidden state (batch, length, `hidden_size`) of token ids (batch, length), int64, each in
    /// 0..`vocab_size`, at most `max_position_embeddings` long: what a Stable Diffusion U-Net attends to.
    ///
    /// # Errors
    /// Ids of another shape, type or range.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        self.forward_skipping(ids, 0)
    }

    /// [`ClipTextModel::forward`] without the last `clip_skip` layers, as diffusers' pipelines count them:
    /// 1 takes the penultimate layer's output. The final layer norm is applied to it.
    ///
    /// # Errors
    /// Those of `forward`; a `clip_skip` that is negative or more than there are layers.
    pub fn forward_skipping(&self, ids: &Tensor, clip_skip: i64) -> Result<Tensor> {
        self.check_ids(ids)?;
        let layers = self.layers.len();
        let kept =
            usize::try_from(clip_skip).ok().and_then(|skip| layers.checked_sub(skip)).ok_or_else(|| {
                Error::input(format!("clip skip {clip_skip}: the text encoder has {layers} layers"))
                    .help(format!("use 0 to {layers}; 0 takes the last layer, 1 the one before"))
            })?;
        let length = ids.size()[1];
        let mut xs = Tensor::f_embedding(&self.token_embedding, ids, -1, false, false)?
            .f_add(&self.position_embedding.f_narrow(0, 0, length)?)?;
        for layer in &self.layers[..kept] {
            xs = layer.forward(&xs)?;
        }
        self.final_layer_norm.forward(&xs)
    }

    /// The pooled output (batch, `hidden_size`): `last_hidden_state` of `ids` at each sequence's first
    /// end-of-text token, or at its highest id where the configuration's `eos_token_id` is the 2 of old.
    ///
    /// # Errors
    /// Tensors that do not belong together, or a configuration without `eos_token_id`.
    pub fn pooled(&self, ids: &Tensor, last_hidden_state: &Tensor) -> Result<Tensor> {
        self.check_ids(ids)?;
        let size = last_hidden_state.size();
        if size.len() != 3 || size[..2] != ids.size()[..] {
            return Err(Error::failure(format!("hidden states {size:?} for token ids {:?}", ids.size())));
        }
        let at = match self.eos_token_id {
            Some(2) => ids.f_argmax(-1, true)?,
            Some(eos) => ids.f_eq(eos)?.f_to_kind(Kind::Int)?.f_argmax(-1, true)?,
            None => {
                return Err(Error::input("the text encoder's configuration has no `eos_token_id`")
                    .help("the pooled output is taken at the end-of-text token: name it there"));
            }
        };
        let at = at.f_unsqueeze(-1)?.f_expand([size[0], 1, size[2]], false)?;
        Ok(last_hidden_state.f_gather(1, &at, false)?.f_squeeze_dim(1)?)
    }

    fn check_ids(&self, ids: &Tensor) -> Result<()> {
        let (size, longest) = (ids.size(), self.position_embedding.size()[0]);
        if ids.kind() != Kind::Int64 || size.len() != 2 || size.contains(&0) {
            return Err(Error::failure(format!(
                "token ids of {:?}, shape {size:?}: int64 (batch, length) is needed",
                ids.kind()
            )));
        }
        if size[1] > longest {
            return Err(Error::input(format!("{} tokens: the text encoder takes {longest}", size[1]))
                .help("the tokenizer and the text encoder are of different models"));
        }
        let vocab_size = self.token_embedding.size()[0];
        let (low, high) = (i64::try_from(ids.f_min()?)?, i64::try_from(ids.f_max()?)?);
        if let Some(id) = [low, high].into_iter().find(|id| !(0..vocab_size).contains(id)) {
            return Err(Error::input(format!(
                "token id {id}: the text encoder's vocabulary has {vocab_size} tokens"
            ))
            .help("the tokenizer and the text encoder are of different models"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;

    fn read(text: &str) -> Result<ClipTextConfig> {
        ClipTextConfig::read(&Config::parse(text, std::path::Path::new("text_encoder/config.json"))?)
    }

    fn tiny() -> ClipTextConfig {
        ClipTextConfig {
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 5,
            hidden_act: ClipActivation::Gelu,
            layer_norm_eps: 1e-6,
            eos_token_id: None,
        }
    }

    /// The configuration of Stable Diffusion 1.x's text encoder, as transformers 4.22 wrote it.
    const SD1: &str = r#"{"_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
        "hidden_act": "quick_gelu", "hidden_size": 768, "initializer_factor": 1.0, "initializer_range": 0.02,
        "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
        "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12,
        "pad_token_id": 1, "projection_dim": 768, "torch_dtype": "float32",
        "transformers_version": "4.22.0.dev0", "vocab_size": 49408}"#;

    #[test]
    fn a_configuration_is_read_written_and_refused_by_name() {
        let sd1 = read(SD1).unwrap();
        assert_eq!((sd1.hidden_size, sd1.num_attention_heads, sd1.eos_token_id), (768, 12, Some(2)));
        assert_eq!(sd1.hidden_act, ClipActivation::QuickGelu);
        for config in [sd1, tiny()] {
            assert_eq!(read(&config.to_json().to_string()).unwrap(), config);
        }
        for (text, named) in [
            (r#"{"hidden_act": "gelu_new"}"#, "`hidden_act` = \"gelu_new\""),
            (r#"{"use_attention_mask": true}"#, "use_attention_mask"),
            (r#"{"model_type": "clip"}"#, "`model_type` = \"clip\""),
            (r#"{"rope_theta": 10000}"#, "`rope_theta`"),
            (r#"{"hidden_size": 10, "num_attention_heads": 4}"#, "no multiple"),
            (r#"{"num_hidden_layers": 0}"#, "`num_hidden_layers` is 0"),
            (r#"{"eos_token_id": [1, 2]}"#, "`eos_token_id`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("config.json"), "{error}");
        }
    }

    #[test]
    fn ids_that_do_not_fit_are_refused() {
        let vs = VarStore::new(Device::Cpu);
        let model = ClipTextModel::new(&vs.root(), &tiny()).unwrap();
        let ids = |values: &[i64]| Tensor::from_slice(values).view([1, -1]);
        assert_eq!(model.forward(&ids(&[0, 10, 3])).unwrap().size(), [1, 3, 8]);
        for (bad, says) in [
            (ids(&[0, 11]), "token id 11"),
            (ids(&[-1, 3]), "token id -1"),
            (ids(&[0; 6]), "6 tokens: the text encoder takes 5"),
            (Tensor::from_slice(&[1i64, 2]), "shape [2]"),
            (ids(&[1]).to_kind(Kind::Float), "Float"),
        ] {
            let error = model.forward(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(model.forward_skipping(&ids(&[1]), 2).is_ok());
        for skip in [-1, 3] {
            assert!(model.forward_skipping(&ids(&[1]), skip).is_err());
        }
        let hidden = model.forward(&ids(&[1])).unwrap();
        let error = model.pooled(&ids(&[1]), &hidden).unwrap_err();
        assert!(error.to_string().contains("eos_token_id"), "{error}");
    }
}
