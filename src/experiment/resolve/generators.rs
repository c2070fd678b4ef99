//! `[generators.NAME]`, filled in and checked.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::Check;
use crate::{
    error::Result,
    experiment::{
        Generator, GeneratorNetworks, GeneratorSpec, GeneratorTraining, ImageSpace, origin::nearest,
    },
    plain_file,
    vocabulary::{GeneratorCheckpoint, Mode, NoiseLevels, Objective, Precision, PromptField, Sampler},
};

pub(super) fn resolve(
    typed: BTreeMap<String, GeneratorSpec>,
    check: &Check,
) -> Result<BTreeMap<String, Generator>> {
    let mut resolved = BTreeMap::new();
    let objectives: BTreeMap<String, Objective> =
        typed.keys().filter_map(|name| Some((name.clone(), objective(name, &typed, typed.len())?))).collect();
    let sizes: BTreeMap<String, usize> =
        typed.iter().filter_map(|(name, typed)| Some((name.clone(), typed.image_size?))).collect();
    let names: Vec<String> = typed.keys().cloned().collect();
    let mut incomplete = HashSet::new();
    for (name, typed) in typed {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.is_empty() || !name.chars().all(fits) {
            let table = format!("generators.{name}");
            return Err(check.fault(&table, "cannot name a generator", "use letters, digits, - and _"));
        }
        let table = GeneratorTable { name: &name, check };
        let Some(mode) = typed.mode else {
            let modes =
                "one of \"unconditional\", \"text\", \"text+segmentation\", \"inpaint\", \"external\"";
            return table.fault("mode", "is missing", modes);
        };
        let preset = typed.preset.unwrap_or_default();
        let mut typed = typed;
        if let Some(scheduler) = typed.scheduler {
            // The preset's levels go with the preset's scheduler.
            typed.noise_levels.get_or_insert(match scheduler.is_flow_matching() {
                true => NoiseLevels::Even,
                false => NoiseLevels::Timesteps,
            });
            typed.shift.get_or_insert(0.0);
            if scheduler == Sampler::FlowEuler {
                typed.sampling_steps.get_or_insert(10);
            }
        }
        if typed.pipeline.is_some() {
            typed.shift.get_or_insert(0.0);
        }
        if mode == Mode::Inpaint && typed.image_size.is_none() {
            typed.image_size = typed.base.as_ref().and_then(|base| sizes.get(base)).copied();
        }
        let base = Generator::preset(preset, mode);
        let objective = objectives.get(&name).copied().unwrap_or(base.training.objective);
        let generator = typed.clone().over(base.clone().with_objective(objective));
        // What a missing folder decides is not checked.
        if table.lacks_folders(&generator, &names) {
            incomplete.insert(name.clone());
        } else {
            table.only_with(objective, &typed, &base.training)?;
            table.checked(&generator)?;
        }
        resolved.insert(name, generator);
    }
    for (name, generator) in resolved.iter().filter(|(name, _)| !incomplete.contains(*name)) {
        check_base(name, generator, &resolved, check)?;
    }
    Ok(resolved)
}

/// The objective of the generator `name`: as typed; else that of what it starts from, or of the folder that samples it.
/// None: the preset's. `depth` ends a circle of bases, which is refused later.
fn objective(name: &str, typed: &BTreeMap<String, GeneratorSpec>, depth: usize) -> Option<Objective> {
    let table = typed.get(name)?;
    let of_preset =
        || Some(Generator::preset(table.preset.unwrap_or_default(), table.mode?).training.objective);
    if table.objective.is_some() {
        return table.objective;
    }
    if let Some(folder) = table.pipeline.as_ref().filter(|folder| !folder.as_os_str().is_empty()) {
        return Some(objective_of_folder(folder));
    }
    match table.base.as_deref() {
        None | Some("") => of_preset(),
        Some(base) if typed.contains_key(base) => match depth {
            0 => of_preset(),
            _ => objective(base, typed, depth - 1),
        },
        Some(folder) => Some(objective_of_folder(Path::new(folder))),
    }
}

/// By the scheduler in a pipeline's folder, or in the first of the folders of a class each. What cannot be read is
/// reported by whoever reads the whole folder.
fn objective_of_folder(folder: &Path) -> Objective {
    let class = [folder.to_owned(), folder.join("2ch_ed")]
        .into_iter()
        .filter_map(|dir| plain_file::read_to_string(&dir.join("scheduler/scheduler_config.json")).ok())
        .find_map(|text| {
            let class = text.split("\"_class_name\"").nth(1)?.split('"').nth(1)?;
            Some(class.to_owned())
        });
    match class.is_some_and(|class| class.starts_with("FlowMatch")) {
        true => Objective::Flow,
        false => Objective::Diffusion,
    }
}

/// The table whose values are checked.
struct GeneratorTable<'a> {
    name: &'a str,
    check: &'a Check<'a>,
}

impl GeneratorTable<'_> {
    fn key(&self, field: &str) -> String {
        format!("generators.{}.{field}", self.name)
    }

    fn fault<T>(&self, field: &str, problem: &str, help: &str) -> Result<T> {
        Err(self.check.fault(&self.key(field), problem, help))
    }

    fn range(&self, field: &str, value: f64, low: f64, high: f64) -> Result<()> {
        self.check.range(&self.key(field), value, low, high)
    }

    /// Refuses typed keys that mean something only with the other objective. The preset's own values pass: a resolved spec
    /// has them all.
    fn only_with(
        &self,
        objective: Objective,
        typed: &GeneratorSpec,
        preset: &GeneratorTraining,
    ) -> Result<()> {
        fn typed_otherwise<T: PartialEq>(typed: &Option<T>, preset: &T) -> bool {
            typed.as_ref().is_some_and(|value| value != preset)
        }
        let (diffusion, flow) = (Objective::Diffusion, Objective::Flow);
        let keys: [(&str, bool, Objective); 6] = [
            ("prediction", typed_otherwise(&typed.prediction, &preset.prediction), diffusion),
            ("betas", typed_otherwise(&typed.betas, &preset.betas), diffusion),
            ("min_snr_gamma", typed_otherwise(&typed.min_snr_gamma, &preset.min_snr_gamma), diffusion),
            ("time_sampling", typed_otherwise(&typed.time_sampling, &preset.time_sampling), flow),
            ("optimal_transport", typed_otherwise(&typed.optimal_transport, &preset.optimal_transport), flow),
            ("mask_start", typed_otherwise(&typed.mask_start, &preset.mask_start), flow),
        ];
        match keys.into_iter().find(|(_, typed, of)| *typed && *of != objective) {
            Some((key, _, of)) => {
                let problem = format!(
                    "is only used with objective = \"{of}\", and this generator's is \"{objective}\""
                );
                self.fault(key, &problem, &format!("remove it, or set objective = \"{of}\""))
            }
            None => Ok(()),
        }
    }

    fn checked(&self, g: &Generator) -> Result<()> {
        // The texture of smaller images cannot be measured.
        self.range("image_size", g.image_size as f64, 32.0, 1024.0)?;
        let external = g.mode == Mode::External;
        match (external, g.source.folder.as_os_str().is_empty()) {
            (true, true) => {
                return self.fault(
                    "folder",
                    "is missing",
                    "name the folder of images that the generator made",
                );
            }
            (false, false) => {
                return self.fault("folder", "is only used with mode = \"external\"", "remove it");
            }
            _ => {}
        }
        if external {
            return Ok(());
        }
        let has_controlnet = !g.source.controlnet.as_os_str().is_empty();
        if has_controlnet && (g.mode != Mode::TextSegmentation || g.is_trained()) {
            let help = "it goes with mode = \"text+segmentation\" and `pipeline`";
            return self.fault("controlnet", "nothing takes this ControlNet", help);
        }
        self.training(&g.training)?;
        self.mask(g)?;
        self.sampling(g)?;
        self.range("seed", g.seed as f64, 0.0, i64::MAX as f64)?;
        let a = &g.augment;
        self.range("augment.rotate", a.rotate, 0.0, 180.0)?;
        self.range("augment.translate", a.translate, 0.0, 1.0)?;
        self.range("augment.scale", a.scale, 0.0, 0.9)?;
        self.range("augment.shear", a.shear, 0.0, 80.0)?;
        self.range("augment.brightness", a.brightness, 0.0, 1.0)?;
        self.range("augment.contrast", a.contrast, 0.0, 1.0)?;
        self.range("augment.gamma", a.gamma, 0.0, 2.0)?;
        self.range("augment.noise", a.noise, 0.0, 1.0)?;
        if g.sampling.pseudo_masks && g.mode == Mode::TextSegmentation {
            return self.fault("pseudo_masks", "these images have masks: their control masks", "remove it");
        }
        self.inpainting(g)?;
        if matches!(g.mode, Mode::Text | Mode::TextSegmentation) && g.prompts.prompt.trim().is_empty() {
            return self.fault("prompt", "is empty", "write a template, such as \"{view} view, {phase}\"");
        }
        if let Err(problem) = check_template(&g.prompts.prompt) {
            let known = PromptField::ALL.map(|field| format!("{{{field}}}")).join(", ");
            return self.fault("prompt", &problem, &format!("a template knows {known}"));
        }
        if !g.is_trained() {
            return Ok(());
        }
        // From here on: what only training needs.
        self.quality(g)?;
        self.guidance(g)?;
        self.unet(&g.networks)?;
        self.image_space(g)?;
        self.text_encoder(g)?;
        if g.training.precision == Precision::F16 && g.training.clip == 0.0 {
            return self.fault("clip", "f16 needs a limit on the gradient", "clip = 1.0 is usual");
        }
        Ok(())
    }

    fn inpainting(&self, g: &Generator) -> Result<()> {
        self.range("resample", g.sampling.resample as f64, 1.0, 100.0)?;
        if g.mode != Mode::Inpaint {
            return Ok(());
        }
        if g.training.objective != Objective::Flow || g.sampling.scheduler != Sampler::FlowEuler {
            let help = "name a base that was trained with objective = \"flow\", and remove `scheduler`";
            return self.fault("scheduler", "inpainting samples with flow-euler", help);
        }
        if g.sampling.vary_masks {
            return self.fault("vary_masks", "the anatomy of these images is kept as it is", "remove it");
        }
        if g.sampling.pseudo_masks {
            return self.fault("pseudo_masks", "these images keep their masks", "remove it");
        }
        Ok(())
    }

    fn quality(&self, g: &Generator) -> Result<()> {
        let quality = &g.quality;
        self.range("quality_every", quality.quality_every as f64, 0.0, 1e7)?;
        // KID needs pairs of images.
        self.range("quality_images", quality.quality_images as f64, 2.0, 1e4)?;
        if quality.quality_every > 0 && g.has_model_per_class() {
            let problem = "a model of one class makes no set of images to measure";
            return self.fault("quality_every", problem, "set per_class = false, or remove it");
        }
        if quality.checkpoint == GeneratorCheckpoint::Last {
            return Ok(());
        }
        if quality.quality_every == 0 {
            let help = "set quality_every to the steps between two measurements";
            return self.fault("checkpoint", "nothing is measured while the generator is trained", help);
        }
        if quality.checkpoint == GeneratorCheckpoint::LabelDice && g.mode != Mode::TextSegmentation {
            let help = "choose \"kid\" or \"view-accuracy\"";
            return self.fault("checkpoint", "these images have no control masks", help);
        }
        Ok(())
    }

    /// Whether a folder that the generator needs is missing, which is then noted.
    fn lacks_folders(&self, g: &Generator, generators: &[String]) -> bool {
        let source = &g.source;
        let lacks =
            |field: &str, problem: &str, help: &str| self.check.lacks(&self.key(field), problem, help);
        let folders =
            [("folder", &source.folder), ("pipeline", &source.pipeline), ("controlnet", &source.controlnet)];
        let mut any = false;
        for (field, path) in folders {
            if !path.as_os_str().is_empty() && !path.exists() {
                let help = "paths are relative to the working folder";
                lacks(field, &format!("{} does not exist", path.display()), help);
                any = true;
            }
        }
        let base = &source.base;
        if g.is_trained() && !base.is_empty() && !generators.contains(base) && !Path::new(base).is_dir() {
            let help = match nearest(base, generators.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}? Else name a diffusers folder"),
                None => "name another generator of the spec, or a diffusers folder".to_owned(),
            };
            lacks("base", &format!("{base:?} is neither a generator of the spec nor a folder"), &help);
            any = true;
        }
        any
    }

    fn training(&self, t: &GeneratorTraining) -> Result<()> {
        self.range("steps", t.steps as f64, 1.0, 1e7)?;
        self.range("batch_size", t.batch_size as f64, 1.0, 4096.0)?;
        self.range("accumulate", t.accumulate as f64, 1.0, 4096.0)?;
        self.range("learning_rate", t.learning_rate, 1e-9, 1.0)?;
        self.range("warmup_steps", t.warmup_steps as f64, 0.0, 1e7)?;
        self.range("weight_decay", t.weight_decay, 0.0, 1.0)?;
        self.range("clip", t.clip, 0.0, 1e6)?;
        self.range("ema", t.ema, 0.0, 0.999_999)?;
        self.range("prompt_dropout", t.prompt_dropout, 0.0, 1.0)?;
        self.range("min_snr_gamma", t.min_snr_gamma, 0.0, 1e3)
    }

    fn mask(&self, g: &Generator) -> Result<()> {
        let masked = g.mode == Mode::TextSegmentation;
        if g.networks.sector && !masked {
            let help = "remove it: the sector comes with a mask, in mode \"text+segmentation\"";
            return self.fault("sector", "this mode is given no mask", help);
        }
        if g.training.drop_masks && !masked {
            let help = "remove it, or use mode = \"text+segmentation\"";
            return self.fault("drop_masks", "this mode is given no mask", help);
        }
        if g.training.drop_masks && g.training.prompt_dropout == 0.0 {
            let help = "set prompt_dropout = 0.1, or drop_masks = false";
            return self.fault("drop_masks", "no image goes without its prompt", help);
        }
        self.range("mask_start", g.training.mask_start, 0.0, 0.95)?;
        if g.training.mask_start > 0.0 {
            if !masked {
                let help = "remove it, or use mode = \"text+segmentation\"";
                return self.fault("mask_start", "this mode is given no mask", help);
            }
            if g.networks.image_space == ImageSpace::Latent {
                let help = "remove it, or use image_space = \"space-to-depth\"";
                return self.fault("mask_start", "an autoencoder's latents cannot start at a mask", help);
            }
        }
        Ok(())
    }

    fn sampling(&self, g: &Generator) -> Result<()> {
        let s = &g.sampling;
        self.range("sampling_steps", s.sampling_steps as f64, 1.0, 1000.0)?;
        if g.is_trained() {
            // A folder of somebody else may allow others.
            match s.scheduler {
                Sampler::Pndm => self.range("sampling_steps", s.sampling_steps as f64, 4.0, 1000.0)?,
                Sampler::Lcm => self.range("sampling_steps", s.sampling_steps as f64, 1.0, 50.0)?,
                _ => {}
            }
        }
        self.range("sampling_batch", s.sampling_batch as f64, 1.0, 4096.0)?;
        let objective = g.training.objective;
        if s.scheduler.is_flow_matching() != (objective == Objective::Flow) {
            let problem =
                format!("{} cannot sample networks trained with objective = \"{objective}\"", s.scheduler);
            let help = match objective {
                Objective::Flow => "choose \"flow-euler\", or set objective = \"diffusion\"",
                Objective::Diffusion => "choose \"dpmsolver++\", or set objective = \"flow\"",
            };
            return self.fault("scheduler", &problem, help);
        }
        if !s.scheduler.has_levels(s.noise_levels) {
            let (name, levels) = (s.scheduler.as_str(), s.noise_levels.as_str());
            let problem = format!("the scheduler {name} has no noise levels {levels:?}");
            let others = Sampler::ALL.into_iter().filter(|other| {
                other.has_levels(s.noise_levels) && other.is_flow_matching() == s.scheduler.is_flow_matching()
            });
            let help = match others.map(Sampler::as_str).next() {
                Some(other) => format!("set noise_levels = \"timesteps\", or scheduler = {other:?}"),
                None => "set noise_levels = \"timesteps\"".to_owned(),
            };
            return self.fault("noise_levels", &problem, &help);
        }
        self.range("shift", s.shift, 0.0, 100.0)?;
        if s.shift > 0.0 && !s.scheduler.is_flow_matching() {
            let problem = format!("{} has no shift: it is flow matching's", s.scheduler);
            return self.fault("shift", &problem, "leave it out");
        }
        self.range("guidance", s.guidance, 0.0, 100.0)?;
        self.range("per_class_images", s.per_class_images as f64, 1.0, 1e6)?;
        self.range("per_mask", s.per_mask as f64, 1.0, 1e4)?;
        self.range("candidates", s.candidates as f64, 1.0, 1000.0)?;
        if s.candidates > 1 && g.mode != Mode::TextSegmentation {
            let help = "remove it, or use mode = \"text+segmentation\"";
            return self.fault(
                "candidates",
                "only images that are made from masks can be compared with them",
                help,
            );
        }
        Ok(())
    }

    fn guidance(&self, g: &Generator) -> Result<()> {
        if g.sampling.guidance <= 1.0 || g.mode != Mode::Unconditional {
            return Ok(());
        }
        if g.networks.per_class {
            let help = "remove it: guidance 1 is none";
            return self.fault("guidance", "a model of one class has nothing to be guided by", help);
        }
        if g.training.prompt_dropout == 0.0 {
            let help = "set prompt_dropout = 0.1, or remove `guidance`";
            return self.fault("guidance", "a model that always sees the class cannot be guided", help);
        }
        Ok(())
    }

    fn unet(&self, n: &GeneratorNetworks) -> Result<()> {
        if n.channels.is_empty() || n.channels.iter().any(|c| !(1..=8192).contains(c)) {
            let problem = "at least one level of 1 to 8192 channels is needed";
            return self.fault("channels", problem, "[64, 96, 160]");
        }
        if n.norm_num_groups < 1 || n.channels.iter().any(|c| c % n.norm_num_groups != 0) {
            let problem = format!("{:?} cannot be normalised in {} groups", n.channels, n.norm_num_groups);
            let help = "choose a number that divides every level's channels";
            return self.fault("norm_num_groups", &problem, help);
        }
        if let Some(level) = n.attention_levels.iter().find(|&&level| level >= n.channels.len()) {
            let help = format!("levels are 0 to {}", n.channels.len() - 1);
            return self.fault("attention_levels", &format!("the network has no level {level}"), &help);
        }
        self.range("layers_per_block", n.layers_per_block as f64, 1.0, 16.0)?;
        self.range("attention_head_dim", n.attention_head_dim as f64, 1.0, 8192.0)?;
        for &level in &n.attention_levels {
            let channels = n.channels[level];
            if channels % n.attention_head_dim != 0 {
                let problem =
                    format!("{channels} channels are no whole number of heads of {}", n.attention_head_dim);
                let help = "choose a divisor of the attending levels' channels";
                return self.fault("attention_head_dim", &problem, help);
            }
        }
        Ok(())
    }

    fn image_space(&self, g: &Generator) -> Result<()> {
        let (n, from_scratch) = (&g.networks, g.source.base.is_empty());
        let fold = match n.image_space {
            ImageSpace::Pixel => 1,
            ImageSpace::SpaceToDepth => n.patch,
            ImageSpace::Latent => 1 << n.autoencoder_channels.len().saturating_sub(1).min(16),
        };
        if n.image_space == ImageSpace::SpaceToDepth {
            self.range("patch", n.patch as f64, 2.0, 64.0)?;
        }
        if n.image_space == ImageSpace::Latent && from_scratch {
            self.range("autoencoder_steps", n.autoencoder_steps as f64, 1.0, 1e7)?;
            self.range("autoencoder_learning_rate", n.autoencoder_learning_rate, 1e-9, 1.0)?;
            self.range("latent_channels", n.latent_channels as f64, 1.0, 1024.0)?;
            let channels = &n.autoencoder_channels;
            if channels.is_empty() || channels.iter().any(|c| *c < 1 || c % n.norm_num_groups.min(8) != 0) {
                let help = "multiples of 8, from top to bottom: [24, 48, 64]";
                return self.fault("autoencoder_channels", "channels of at least one level are needed", help);
            }
        }
        let whole = fold << (n.channels.len() - 1).min(16);
        if from_scratch && (!g.image_size.is_multiple_of(whole) || g.image_size / whole < 1) {
            let problem = format!(
                "{} px cannot be halved often enough: the network needs a multiple of {whole}",
                g.image_size
            );
            let down = g.image_size / whole * whole;
            let help = match down {
                0 => format!("choose {whole}, or fewer `channels`"),
                _ => format!("choose {down} or {}, or fewer `channels`", down + whole),
            };
            return self.fault("image_size", &problem, &help);
        }
        Ok(())
    }

    fn text_encoder(&self, g: &Generator) -> Result<()> {
        let (n, from_scratch) = (&g.networks, g.source.base.is_empty());
        if !(g.mode == Mode::Text || (g.mode == Mode::TextSegmentation && from_scratch)) {
            return Ok(());
        }
        self.range("text_width", n.text_width as f64, 1.0, 8192.0)?;
        self.range("text_layers", n.text_layers as f64, 1.0, 64.0)?;
        self.range("text_tokens", n.text_tokens as f64, 3.0, 1024.0)?;
        if n.text_heads < 1 || n.text_width % n.text_heads != 0 {
            let problem = format!("{} cannot be divided among {} heads", n.text_width, n.text_heads);
            return self.fault("text_heads", &problem, "choose a divisor of `text_width`");
        }
        if n.attention_levels.is_empty() {
            let problem = "no level attends: the text would reach nothing";
            let help = "name at least one level, the lowest for instance";
            return self.fault("attention_levels", problem, help);
        }
        Ok(())
    }
}

/// Checks the names between the braces of a prompt's template; what is wrong, in words.
fn check_template(template: &str) -> Result<(), String> {
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open..].find('}') else { return Err("a { without its }".to_owned()) };
        let name = &rest[open + 1..open + length];
        if name.parse::<PromptField>().is_err() {
            return Err(format!("prompts have no field {{{name}}}"));
        }
        rest = &rest[open + length + 1..];
    }
    Ok(())
}

/// `base` names another generator or a folder that fits the mode.
fn check_base(name: &str, g: &Generator, all: &BTreeMap<String, Generator>, check: &Check) -> Result<()> {
    let base = &g.source.base;
    let fault = |problem: &str, help: &str| GeneratorTable { name, check }.fault("base", problem, help);
    if !g.is_trained() {
        let (inpaints, finished) = (g.mode == Mode::Inpaint, !g.source.pipeline.as_os_str().is_empty());
        return match (inpaints && !finished, base.is_empty()) {
            (false, true) => Ok(()),
            (false, false) => fault("nothing is trained: there is nothing to start from", "remove it"),
            (true, true) => fault(
                "is missing: inpainting samples an unconditional model",
                "name a generator of mode \"unconditional\", or a finished folder with `pipeline`",
            ),
            (true, false) => match all.get(base) {
                Some(other) if other.mode != Mode::Unconditional => fault(
                    &format!("the generator {base:?} does not fit this mode"),
                    "inpainting samples an unconditional model",
                ),
                Some(other) if other.networks.image_space == ImageSpace::Latent => fault(
                    &format!("{base:?} makes an autoencoder's latents, whose pixels cannot be kept"),
                    "give it image_space = \"space-to-depth\" or \"pixel\"",
                ),
                Some(other) if other.image_size != g.image_size => fault(
                    &format!(
                        "{base:?} makes images of {} px, this one of {}",
                        other.image_size, g.image_size
                    ),
                    "give both the same image_size",
                ),
                Some(_) => Ok(()),
                None => fault(
                    &format!("{base:?} is no generator of the spec"),
                    "name one, or a finished folder with `pipeline`",
                ),
            },
        };
    }
    if base.is_empty() {
        // A ControlNet without a text model is trained together with one.
        return Ok(());
    }
    if let Some(other) = all.get(base) {
        let fits = match g.mode {
            Mode::TextSegmentation => other.mode == Mode::Text,
            mode => other.mode == mode,
        };
        if base == name || !fits {
            let help = match g.mode {
                Mode::Unconditional => "an unconditional model starts from an unconditional one",
                _ => "name a generator of mode \"text\", or a Stable Diffusion folder",
            };
            return fault(&format!("the generator {base:?} does not fit this mode"), help);
        }
        let (theirs, ours) = (other.training.objective, g.training.objective);
        if other.is_trained() && theirs != ours {
            let problem =
                format!("{base:?} is trained with objective = \"{theirs}\", this one with \"{ours}\"");
            return fault(&problem, "give both the same objective");
        }
        if other.is_trained() && other.image_size != g.image_size {
            let (theirs, ours) = (other.image_size, g.image_size);
            let problem = format!("{base:?} makes images of {theirs} px, this one of {ours}");
            return fault(&problem, "give both the same image_size");
        }
        return Ok(());
    }
    let (theirs, ours) = (objective_of_folder(Path::new(base)), g.training.objective);
    match theirs == ours {
        true => Ok(()),
        false => fault(
            &format!("{base:?} was trained with objective = \"{theirs}\", this one is with \"{ours}\""),
            &format!("set objective = \"{theirs}\", or start from another base"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_with_an_unknown_field_is_refused() {
        assert!(check_template("{view}, {ef}").is_ok() && check_template("no field").is_ok());
        assert_eq!(check_template("{veiw}").unwrap_err(), "prompts have no field {veiw}");
        assert!(check_template("{view").is_err());
    }
}
