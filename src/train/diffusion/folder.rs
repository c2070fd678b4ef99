//! The folder that diffusers loads, written from a generator's networks.

use std::path::Path;

use super::{
    denoiser::{Denoiser, TEXT_PARTS},
    fit::Named,
    inputs::NetworkInputs,
};
use crate::{
    error::{AtPath, Result},
    pipeline::{
        folder_write::{write_model_index, write_part, write_scheduler},
        space::Extras,
    },
    vocabulary::Mode,
};

impl Denoiser {
    /// Writes the folder `dir`, with `weights` (by part and name) for what is trained; the other parts
    /// are those of `inputs`' base.
    pub fn write(&self, inputs: &NetworkInputs, weights: &Named, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).at_path(dir, "cannot make the folder")?;
        let text = inputs.settings.mode != Mode::Unconditional;
        for (part, config) in &self.configs {
            let start = format!("{part}/");
            let of_part: Named = weights
                .iter()
                .filter_map(|(name, w)| Some((name.strip_prefix(&start)?.to_owned(), w.shallow_clone())))
                .collect();
            write_part(&dir.join(part), config, &of_part)?;
        }
        write_scheduler(&dir.join("scheduler"), &self.scheduler.to_json())?;
        // What is not trained comes from where it was.
        let mut from: Vec<(&str, std::path::PathBuf)> = Vec::new();
        match inputs.base {
            Some(base) if text => {
                from.extend(TEXT_PARTS.map(|part| (part, base.join(part))));
                from.push(("unet", base.join("unet")));
            }
            Some(base) => from.push(("vae", base.join("vae"))),
            None => {
                from.push(("tokenizer", inputs.work.join("tokenizer")));
                from.extend(inputs.autoencoder.map(|vae| ("vae", vae.to_owned())));
            }
        }
        for (part, place) in from {
            if place.is_dir() && !dir.join(part).exists() {
                copy_folder(&place, &dir.join(part))?;
            }
        }
        if !self.extras.stock {
            let prompt = text.then(|| inputs.settings.prompts.prompt.clone());
            Extras { prompt, ..self.extras.clone() }.write(dir)?;
        }
        if !text {
            let scheduler = ("diffusers", self.scheduler.class().class_name());
            let parts = [("unet", Some(("diffusers", "UNet2DModel"))), ("scheduler", Some(scheduler))];
            // Upstream's DDIM pipeline turns every scheduler into DDIM.
            let class = match self.scheduler.class().is_flow_matching() {
                true => "DDPMPipeline",
                false => "DDIMPipeline",
            };
            return write_model_index(dir, class, &parts);
        }
        let controlnet = dir.join("controlnet").is_dir().then_some(("diffusers", "ControlNetModel"));
        let vae = dir.join("vae").is_dir().then_some(("diffusers", "AutoencoderKL"));
        let class = match controlnet {
            Some(_) => "StableDiffusionControlNetPipeline",
            None => "StableDiffusionPipeline",
        };
        let mut parts = vec![
            ("vae", vae),
            ("text_encoder", Some(("transformers", "CLIPTextModel"))),
            ("tokenizer", Some(("transformers", "CLIPTokenizer"))),
            ("unet", Some(("diffusers", "UNet2DConditionModel"))),
            ("scheduler", Some(("diffusers", self.scheduler.class().class_name()))),
            ("safety_checker", None),
            ("feature_extractor", None),
            ("image_encoder", None),
        ];
        if controlnet.is_some() {
            parts.push(("controlnet", controlnet));
        }
        write_model_index(dir, class, &parts)
    }
}

/// Removes the folder where there is one.
pub(super) fn remove_folder(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).at_path(dir, "cannot remove the folder")?;
    }
    Ok(())
}

/// Copies a part's files.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).at_path(to, "cannot make the folder")?;
    let entries = std::fs::read_dir(from).at_path(from, "cannot read the folder")?;
    for entry in entries {
        let file = entry.at_path(from, "cannot read the folder")?.path();
        let Some(name) = file.file_name().filter(|_| file.is_file()) else { continue };
        let place = to.join(name);
        std::fs::copy(&file, &place).at_path(&place, "cannot copy the file")?;
    }
    Ok(())
}
