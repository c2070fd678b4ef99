//! The prompts of a text model's training, and the text encoder from scratch that learns to tell them apart.

use std::collections::{HashMap, HashSet};

use rand::seq::index;
use tch::{Kind, Reduction, Tensor, nn::VarStore};

use super::{batches::DiffusionBatch, inputs::NetworkInputs};
use crate::{
    error::{AtPath, Error, Result},
    experiment::UpdateRule,
    nn::{
        clip_text::{ClipActivation, ClipTextConfig, ClipTextModel},
        init,
        tokenizer::{self, ClipTokenizer},
        unet2d_condition::UNet2DConditionModel,
    },
    random,
    train::{optimizer::Optimizer, parameters::Parameters},
    vocabulary::Precision,
};

/// Of a text encoder's own training: steps, prompts in each, and AdamW's first rate.
const STEPS: u64 = 300;
const PROMPTS: usize = 64;
const RATE: f64 = 1e-3;

/// The prompts of the samples, as a text encoder that is not trained on sees them.
pub(super) struct Texts {
    /// (prompts, tokens, width), the last one of the empty prompt.
    encoded: Tensor,
    /// Which prompt each sample has, for training and validation samples in turn.
    of: Vec<i64>,
}

impl Texts {
    /// # Errors
    /// A prompt has too many tokens.
    pub fn new(encoder: &ClipTextModel, tokenizer: &ClipTokenizer, inputs: &NetworkInputs) -> Result<Self> {
        Self::encode(encoder, Prompts::new(tokenizer, inputs)?)
    }

    /// With a text encoder from scratch, its vocabulary that of the prompts: its weights and configuration.
    /// It and what pools its states in `unet`, whose weights `unet_vs` holds, have learned to tell the prompts
    /// apart; nothing is left to train of them.
    ///
    /// # Errors
    /// A prompt has too many tokens, or the vocabulary cannot be written.
    pub fn from_scratch(
        inputs: &NetworkInputs,
        unet: &UNet2DConditionModel,
        unet_vs: &VarStore,
    ) -> Result<(Self, VarStore, serde_json::Value)> {
        let settings = inputs.settings;
        let dir = inputs.work.join("tokenizer");
        std::fs::create_dir_all(&dir).at_path(&dir, "cannot make the folder")?;
        tokenizer::learn(inputs.prompts, settings.networks.text_tokens, &dir)?;
        let tokenizer = ClipTokenizer::read(&dir)?;
        let config = ClipTextConfig {
            vocab_size: tokenizer.vocab_size() as i64,
            hidden_size: settings.networks.text_width,
            intermediate_size: 4 * settings.networks.text_width,
            num_hidden_layers: settings.networks.text_layers,
            num_attention_heads: settings.networks.text_heads,
            max_position_embeddings: settings.networks.text_tokens,
            hidden_act: ClipActivation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: Some(tokenizer.eos().into()),
        };
        let mut vs = VarStore::new(inputs.device);
        let encoder = ClipTextModel::new(&vs.root(), &config)?;
        init::fill(&vs, random::seed(inputs.seed, "text encoder", &[]), None);
        let prompts = Prompts::new(&tokenizer, inputs)?;
        tell_apart(&prompts, &encoder, unet, [&vs, unet_vs], random::seed(inputs.seed, "texts", &[]))?;
        vs.freeze();
        freeze_pooling(unet_vs);
        Ok((Self::encode(&encoder, prompts)?, vs, config.to_json()))
    }

    fn encode(encoder: &ClipTextModel, prompts: Prompts) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        Ok(Self { encoded: encoder.forward(&prompts.ids)?, of: prompts.of })
    }

    /// (batch, tokens, width) in the type `kind`.
    pub fn embed(&self, batch: &DiffusionBatch, kind: Kind) -> Result<Tensor> {
        let empty = self.encoded.size()[0] - 1;
        let rows: Vec<i64> = batch
            .chosen
            .iter()
            .zip(&batch.dropped)
            .map(|(&i, &dropped)| if dropped { empty } else { self.of[batch.offset + i] })
            .collect();
        let rows = Tensor::from_slice(&rows).to_device(self.encoded.device());
        Ok(self.encoded.f_index_select(0, &rows)?.to_kind(kind))
    }
}

/// What pools texts for the time embedding is left as it is: trained with the rest it lets the texts go before
/// the rest has learned to read them.
pub(super) fn freeze_pooling(vs: &VarStore) {
    for (_, variable) in pooling(vs) {
        let _ = variable.set_requires_grad(false);
    }
}

fn pooling(vs: &VarStore) -> impl Iterator<Item = (String, Tensor)> {
    vs.variables().into_iter().filter(|(name, _)| name.starts_with("add_embedding."))
}

/// Few prompts of the samples are different ones.
struct Prompts {
    /// Those of the training samples, which alone are learned from; they are the first rows of `ids`.
    learned: Vec<String>,
    /// (different prompts and the empty one, tokens)
    ids: Tensor,
    /// Which of them each sample has.
    of: Vec<i64>,
}

impl Prompts {
    fn new(tokenizer: &ClipTokenizer, inputs: &NetworkInputs) -> Result<Self> {
        let mut known: HashMap<&str, i64> = HashMap::new();
        let (mut ids, mut of, mut learned) = (Vec::new(), Vec::new(), Vec::new());
        for (i, prompt) in inputs.prompts.iter().enumerate() {
            let next = known.len() as i64;
            let at = *known.entry(prompt).or_insert(next);
            if at == next {
                let encoded = tokenizer.encode(prompt)?;
                if let Some(cut) = encoded.cut {
                    return Err(Error::input(format!(
                        "a prompt is too long, {cut:?} would be cut off: {prompt:?}"
                    ))
                    .help("shorten `prompt`, or raise `text_tokens` of a text encoder from scratch"));
                }
                ids.extend(encoded.ids);
                if i < inputs.train_prompts {
                    learned.push(prompt.clone());
                }
            }
            of.push(at);
        }
        ids.extend(tokenizer.encode("")?.ids);
        let ids = Tensor::from_slice(&ids).f_view([known.len() as i64 + 1, -1])?.to_device(inputs.device);
        Ok(Self { learned, ids, of })
    }
}

/// Trains a text encoder from scratch, and the attention that pools its states for the time embedding of
/// `unet`, until the pooled prompts are as alike as their words ([`alikeness`]); `stores` hold their weights.
///
/// Words that mean nothing yet are noise to a U-Net, which learns to ignore them before they could learn to
/// mean something. Published models start from a text encoder that knows its words (CLIP); this one learns the
/// few that it will see.
fn tell_apart(
    prompts: &Prompts,
    encoder: &ClipTextModel,
    unet: &UNet2DConditionModel,
    [text_vs, unet_vs]: [&VarStore; 2],
    seed: u64,
) -> Result<()> {
    let count = prompts.learned.len();
    let Some(alike) = alikeness(&prompts.learned) else { return Ok(()) };
    let device = prompts.ids.device();
    let alike = Tensor::f_from_slice(&alike)?.f_view([count as i64, count as i64])?.to_device(device);
    let variables: HashMap<String, Tensor> =
        text_vs.variables().into_iter().chain(pooling(unet_vs)).collect();
    let parameters = Parameters::new(variables, Precision::F32)?;
    let mut optimizer = Optimizer::new(UpdateRule::AdamW { weight_decay: 0.0 }, &parameters.master);
    for step in 0..STEPS {
        let mut rng = random::rng(seed, "prompts told apart", &[step]);
        let rows: Vec<i64> =
            index::sample(&mut rng, count, count.min(PROMPTS)).into_iter().map(|row| row as i64).collect();
        let rows = Tensor::f_from_slice(&rows)?.to_device(device);
        let target = alike.f_index_select(0, &rows)?.f_index_select(1, &rows)?;
        let states = encoder.forward(&prompts.ids.f_index_select(0, &rows)?)?;
        let Some(pooled) = unet.embed_texts(&states)? else { return Ok(()) };
        // The last norm makes the length of each the root of its channels.
        let cosines = pooled.f_matmul(&pooled.f_transpose(0, 1)?)? / pooled.size()[1] as f64;
        let gradient = parameters.gradient(&cosines.f_mse_loss(&target, Reduction::Mean)?)?;
        optimizer.step(&parameters.master, &gradient, RATE * (1.0 - step as f64 / STEPS as f64));
    }
    Ok(())
}

/// How alike prompts are: cosines between them (prompts, prompts), row by row. Two prompts share the Dice
/// coefficient of those of their words that not all prompts have; its mean is taken out by rows and columns, so
/// that what most prompts share does not count. None where nothing tells prompts apart.
fn alikeness(prompts: &[String]) -> Option<Vec<f32>> {
    let n = prompts.len();
    let words: Vec<HashSet<&str>> = prompts
        .iter()
        .map(|prompt| prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect())
        .collect();
    let varies = |word: &&&str| !words.iter().all(|of| of.contains(**word));
    let words: Vec<HashSet<&str>> =
        words.iter().map(|of| of.iter().filter(varies).copied().collect()).collect();
    let share = |a: &HashSet<&str>, b: &HashSet<&str>| match a.len() + b.len() {
        0 => 1.0,
        all => 2.0 * a.intersection(b).count() as f64 / all as f64,
    };
    let shares: Vec<f64> = words.iter().flat_map(|a| words.iter().map(move |b| share(a, b))).collect();
    let means: Vec<f64> = shares.chunks(n.max(1)).map(|row| row.iter().sum::<f64>() / n as f64).collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    let centred = |i: usize, j: usize| shares[i * n + j] - means[i] - means[j] + mean;
    let lengths: Vec<f64> = (0..n).map(|i| centred(i, i).max(0.0).sqrt()).collect();
    if lengths.iter().all(|&length| length < 1e-6) {
        return None;
    }
    let cosine = |i: usize, j: usize| (centred(i, j) / (lengths[i] * lengths[j]).max(1e-12)) as f32;
    Some((0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| cosine(i, j)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        experiment::{Generator, GeneratorNetworks, GeneratorPreset},
        nn::{diffusion::config::BlockType, unet2d_condition::UNet2DConditionConfig},
        vocabulary::Mode,
    };

    #[test]
    fn prompts_are_as_alike_as_the_words_that_vary() {
        let prompts = ["two view, ed", "two view, es", "four view, ed", "four view, es"].map(str::to_owned);
        let alike = alikeness(&prompts).unwrap();
        // Half of the words shared is no likeness, none shared is the opposite.
        let expected =
            [[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, -1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 1.0]];
        let difference = |(found, expected): (&f32, &f32)| (found - expected).abs();
        assert!(alike.iter().zip(expected.as_flattened()).map(difference).all(|d| d < 1e-6), "{alike:?}");
    }

    #[test]
    fn prompts_that_nothing_tells_apart_are_left_alone() {
        assert!(alikeness(&["a view".to_owned()]).is_none());
        assert!(alikeness(&["a view".to_owned(), "a, view".to_owned()]).is_none());
        assert!(alikeness(&[]).is_none());
    }

    #[test]
    fn a_text_encoder_from_scratch_tells_its_prompts_apart_and_is_left_alone_then() {
        let views = ["two", "four"].map(|view| format!("{view}-chamber apical view"));
        let prompts: Vec<String> = views
            .iter()
            .flat_map(|view| ["ed", "es"].map(|phase| format!("{view}, {phase}, good quality")))
            .chain(views.iter().map(|view| format!("{view}, ed, poor quality")))
            .collect();
        let preset = Generator::preset(GeneratorPreset::Cpu, Mode::Text);
        let settings = Generator {
            networks: GeneratorNetworks {
                text_width: 32,
                text_layers: 1,
                text_heads: 2,
                text_tokens: 20,
                ..preset.networks
            },
            ..preset
        };
        let work = tempfile::tempdir().unwrap();
        // The last one is a validation sample's.
        let train_prompts = prompts.len() - 1;
        let inputs = NetworkInputs {
            settings: &settings,
            base: None,
            prompts: &prompts,
            train_prompts,
            autoencoder: None,
            classes: &[],
            work: work.path(),
            kind: Kind::Float,
            device: tch::Device::Cpu,
            seed: 3,
        };
        let config = UNet2DConditionConfig {
            down_block_types: vec![BlockType::CrossAttention],
            up_block_types: vec![BlockType::CrossAttention],
            block_out_channels: vec![16],
            layers_per_block: vec![1],
            norm_num_groups: 8,
            cross_attention_dim: vec![32],
            transformer_layers_per_block: vec![1],
            attention_heads: vec![2],
            text_embed_heads: Some(2),
            ..UNet2DConditionConfig::default()
        };
        let cosines = {
            let vs = VarStore::new(tch::Device::Cpu);
            let unet = UNet2DConditionModel::new(&vs.root(), &config).unwrap();
            init::fill(&vs, 3, None);
            let (texts, text_vs, _) = Texts::from_scratch(&inputs, &unet, &vs).unwrap();
            let states = texts.encoded.narrow(0, 0, train_prompts as i64);
            let pooled = unet.embed_texts(&states).unwrap().unwrap();
            for (name, variable) in vs.variables() {
                assert_eq!(variable.requires_grad(), !name.starts_with("add_embedding."), "{name}");
            }
            assert!(text_vs.variables().values().all(|variable| !variable.requires_grad()));
            let cosines = pooled.matmul(&pooled.transpose(0, 1)) / pooled.size()[1] as f64;
            Vec::<f32>::try_from(cosines.view(-1)).unwrap()
        };
        let alike = alikeness(&prompts[..train_prompts]).unwrap();
        assert_eq!(alike.len(), cosines.len());
        let off =
            cosines.iter().zip(&alike).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
        println!("off by {off}");
        assert!(off < 0.1, "{cosines:?}, {alike:?}");
    }
}
