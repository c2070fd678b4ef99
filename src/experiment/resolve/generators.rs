//! `[generators.NAME]`, filled in and checked.

use std::{collections::BTreeMap, path::Path};

use super::Check;
use crate::{
    error::Result,
    experiment::{Generator, GeneratorSpec, ImageSpace, MaskConditioning, read::nearest},
    vocabulary::{Mode, NoiseLevels, Precision, Sampler},
};

pub(super) fn resolve(
    typed: BTreeMap<String, GeneratorSpec>,
    check: &Check,
) -> Result<BTreeMap<String, Generator>> {
    let mut resolved = BTreeMap::new();
    for (name, typed) in typed {
        let key = |field: &str| format!("generators.{name}.{field}");
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.is_empty() || !name.chars().all(fits) {
            let table = format!("generators.{name}");
            return Err(check.fault(&table, "cannot name a generator", "use letters, digits, - and _"));
        }
        let mode = typed.mode.ok_or_else(|| {
            let modes = "one of \"unconditional\", \"text\", \"text+segmentation\", \"external\"";
            check.fault(&key("mode"), "is missing", modes)
        })?;
        let preset = typed.preset.unwrap_or_default();
        let mut typed = typed;
        if typed.scheduler.is_some() {
            // The preset's levels go with the preset's scheduler.
            typed.noise_levels.get_or_insert(NoiseLevels::Timesteps);
        }
        let generator = typed.over(Generator::preset(preset, mode));
        checked(&generator, &key, check)?;
        resolved.insert(name, generator);
    }
    for (name, generator) in &resolved {
        check_base(name, generator, &resolved, check)?;
    }
    Ok(resolved)
}

fn checked(g: &Generator, key: &dyn Fn(&str) -> String, check: &Check) -> Result<()> {
    let fault = |field: &str, problem: &str, help: &str| Err(check.fault(&key(field), problem, help));
    let range = |field: &str, value: f64, low: f64, high: f64| check.range(&key(field), value, low, high);
    let folders = [("folder", &g.folder), ("pipeline", &g.pipeline), ("controlnet", &g.controlnet)];
    for (field, path) in folders {
        if !path.as_os_str().is_empty() && !path.exists() {
            let help = "paths are relative to the working folder";
            return fault(field, &format!("there is no {}", path.display()), help);
        }
    }
    // The texture of smaller images cannot be measured.
    range("image_size", g.image_size as f64, 32.0, 1024.0)?;
    let external = g.mode == Mode::External;
    match (external, g.folder.as_os_str().is_empty()) {
        (true, true) => {
            return fault("folder", "is missing", "name the folder of images that the generator made");
        }
        (false, false) => return fault("folder", "goes with mode = \"external\" alone", "remove it"),
        _ => {}
    }
    if external {
        return Ok(());
    }
    if !g.controlnet.as_os_str().is_empty() && (g.mode != Mode::TextSegmentation || g.is_trained()) {
        let help = "it goes with mode = \"text+segmentation\" and `pipeline`";
        return fault("controlnet", "nothing takes this ControlNet", help);
    }
    range("steps", g.steps as f64, 1.0, 1e7)?;
    range("batch_size", g.batch_size as f64, 1.0, 4096.0)?;
    range("accumulate", g.accumulate as f64, 1.0, 4096.0)?;
    range("learning_rate", g.learning_rate, 1e-9, 1.0)?;
    range("warmup_steps", g.warmup_steps as f64, 0.0, 1e7)?;
    range("weight_decay", g.weight_decay, 0.0, 1.0)?;
    range("clip", g.clip, 0.0, 1e6)?;
    range("ema", g.ema, 0.0, 0.999_999)?;
    range("prompt_dropout", g.prompt_dropout, 0.0, 1.0)?;
    range("min_snr_gamma", g.min_snr_gamma, 0.0, 1e3)?;
    range("sampling_steps", g.sampling_steps as f64, 1.0, 1000.0)?;
    if g.scheduler == Sampler::Pndm && g.is_trained() {
        range("sampling_steps", g.sampling_steps as f64, 4.0, 1000.0)?;
    }
    range("sampling_batch", g.sampling_batch as f64, 1.0, 4096.0)?;
    let fits = match g.noise_levels {
        NoiseLevels::Timesteps => true,
        NoiseLevels::Karras => matches!(g.scheduler, Sampler::DpmSolver | Sampler::UniPc),
        NoiseLevels::LogSnr => g.scheduler == Sampler::DpmSolver,
    };
    if !fits {
        let (name, levels) = (g.scheduler.as_str(), g.noise_levels.as_str());
        let problem = format!("the scheduler {name} has no noise levels {levels:?}");
        return fault(
            "noise_levels",
            &problem,
            "set noise_levels = \"timesteps\", or scheduler = \"dpmsolver++\"",
        );
    }
    range("guidance", g.guidance, 0.0, 100.0)?;
    range("per_class_images", g.per_class_images as f64, 1.0, 1e6)?;
    range("per_mask", g.per_mask as f64, 1.0, 1e4)?;
    range("seed", g.seed as f64, 0.0, i64::MAX as f64)?;
    let a = &g.augment;
    range("augment.rotate", a.rotate, 0.0, 180.0)?;
    range("augment.translate", a.translate, 0.0, 1.0)?;
    range("augment.scale", a.scale, 0.0, 0.9)?;
    range("augment.shear", a.shear, 0.0, 80.0)?;
    range("augment.brightness", a.brightness, 0.0, 1.0)?;
    range("augment.contrast", a.contrast, 0.0, 1.0)?;
    if g.pseudo_masks && g.mode == Mode::TextSegmentation {
        return fault("pseudo_masks", "these images have masks: their control masks", "remove it");
    }
    let texts = g.mode != Mode::Unconditional;
    if texts && g.prompt.trim().is_empty() {
        return fault("prompt", "is empty", "write a template, such as \"{view} view, {phase}\"");
    }
    crate::prompt::check(&g.prompt).map_err(|problem| {
        let known = crate::prompt::FIELDS.map(|f| format!("{{{f}}}")).join(", ");
        check.fault(&key("prompt"), &problem, &format!("a template knows {known}"))
    })?;
    if !g.is_trained() {
        return Ok(());
    }
    if g.guidance > 1.0 && g.mode == Mode::Unconditional {
        let help = "remove it: guidance 1 is none";
        if g.per_class {
            return fault("guidance", "a model of one class has nothing to be guided by", help);
        }
        if g.prompt_dropout == 0.0 {
            let help = "set prompt_dropout = 0.1, or remove `guidance`";
            return fault("guidance", "a model that always sees the class cannot be guided", help);
        }
    }
    // From here on: what only training needs.
    if g.channels.is_empty() || g.channels.iter().any(|c| !(1..=8192).contains(c)) {
        return fault("channels", "at least one level of 1 to 8192 channels is needed", "[64, 96, 160]");
    }
    if g.norm_num_groups < 1 || g.channels.iter().any(|c| c % g.norm_num_groups != 0) {
        let problem = format!("{:?} cannot be normalised in {} groups", g.channels, g.norm_num_groups);
        return fault("norm_num_groups", &problem, "choose a number that divides every level's channels");
    }
    if let Some(level) = g.attention_levels.iter().find(|&&level| level >= g.channels.len()) {
        let help = format!("levels are 0 to {}", g.channels.len() - 1);
        return fault("attention_levels", &format!("there is no level {level}"), &help);
    }
    range("layers_per_block", g.layers_per_block as f64, 1.0, 16.0)?;
    range("attention_head_dim", g.attention_head_dim as f64, 1.0, 8192.0)?;
    for &level in &g.attention_levels {
        let channels = g.channels[level];
        if channels % g.attention_head_dim != 0 {
            let problem =
                format!("{channels} channels are no whole number of heads of {}", g.attention_head_dim);
            return fault(
                "attention_head_dim",
                &problem,
                "choose a divisor of the attending levels' channels",
            );
        }
    }
    let fold = match g.image_space {
        ImageSpace::Pixel => 1,
        ImageSpace::SpaceToDepth => g.patch,
        ImageSpace::Latent => 1 << g.autoencoder_channels.len().saturating_sub(1).min(16),
    };
    if g.image_space == ImageSpace::SpaceToDepth {
        range("patch", g.patch as f64, 2.0, 64.0)?;
    }
    if g.image_space == ImageSpace::Latent && g.base.is_empty() {
        range("autoencoder_steps", g.autoencoder_steps as f64, 1.0, 1e7)?;
        range("autoencoder_learning_rate", g.autoencoder_learning_rate, 1e-9, 1.0)?;
        range("latent_channels", g.latent_channels as f64, 1.0, 1024.0)?;
        let channels = &g.autoencoder_channels;
        if channels.is_empty() || channels.iter().any(|c| *c < 1 || c % g.norm_num_groups.min(8) != 0) {
            let help = "multiples of 8, from top to bottom: [24, 48, 64]";
            return fault("autoencoder_channels", "channels of at least one level are needed", help);
        }
    }
    let whole = fold << (g.channels.len() - 1).min(16);
    if g.base.is_empty() && (!g.image_size.is_multiple_of(whole) || g.image_size / whole < 1) {
        let problem = format!(
            "{} px cannot be halved often enough: the network needs a multiple of {whole}",
            g.image_size
        );
        let down = g.image_size / whole * whole;
        let help = match down {
            0 => format!("choose {whole}, or fewer `channels`"),
            _ => format!("choose {down} or {}, or fewer `channels`", down + whole),
        };
        return fault("image_size", &problem, &help);
    }
    if g.mode == Mode::Text || (g.mode == Mode::TextSegmentation && g.base.is_empty()) {
        range("text_width", g.text_width as f64, 1.0, 8192.0)?;
        range("text_layers", g.text_layers as f64, 1.0, 64.0)?;
        range("text_tokens", g.text_tokens as f64, 3.0, 1024.0)?;
        if g.text_heads < 1 || g.text_width % g.text_heads != 0 {
            let problem = format!("{} is no whole number of {} heads", g.text_width, g.text_heads);
            return fault("text_heads", &problem, "choose a divisor of `text_width`");
        }
        if g.attention_levels.is_empty() {
            let problem = "no level attends: the text would reach nothing";
            return fault("attention_levels", problem, "name at least one level, the lowest for instance");
        }
    }
    if g.precision == Precision::F16 && g.clip == 0.0 {
        return fault("clip", "f16 needs a limit on the gradient", "clip = 1.0 is usual");
    }
    Ok(())
}

/// `base` names another generator or a folder that fits the mode.
fn check_base(name: &str, g: &Generator, all: &BTreeMap<String, Generator>, check: &Check) -> Result<()> {
    let key = format!("generators.{name}.base");
    if !g.is_trained() {
        return match g.base.is_empty() {
            true => Ok(()),
            false => {
                Err(check.fault(&key, "nothing is trained: there is nothing to start from", "remove it"))
            }
        };
    }
    if g.base.is_empty() {
        let controlnet = g.conditioning == MaskConditioning::Controlnet;
        return match g.mode == Mode::TextSegmentation && controlnet {
            true => Err(check.fault(
                &key,
                "is missing: a ControlNet is trained beside a text model",
                "name a generator of mode \"text\" or a diffusers folder, or set conditioning = \"channels\"",
            )),
            false => Ok(()),
        };
    }
    if let Some(base) = all.get(&g.base) {
        let fits = match g.mode {
            Mode::TextSegmentation => base.mode == Mode::Text,
            mode => base.mode == mode,
        };
        if g.base == name || !fits {
            let help = match g.mode {
                Mode::Unconditional => "an unconditional model starts from an unconditional one",
                _ => "name a generator of mode \"text\", or a Stable Diffusion folder",
            };
            let problem = format!("the generator {:?} does not fit this mode", g.base);
            return Err(check.fault(&key, &problem, help));
        }
        if base.is_trained() && base.image_size != g.image_size {
            let problem =
                format!("{:?} makes images of {} px, this one of {}", g.base, base.image_size, g.image_size);
            return Err(check.fault(&key, &problem, "give both the same image_size"));
        }
        return Ok(());
    }
    if Path::new(&g.base).is_dir() {
        return Ok(());
    }
    let help = match nearest(&g.base, all.keys().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}? Else name a diffusers folder"),
        None => "name another generator of the spec, or a diffusers folder".to_owned(),
    };
    Err(check.fault(&key, &format!("there is no generator and no folder {:?}", g.base), &help))
}
