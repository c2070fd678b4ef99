//! What is denoised: pixels, space-to-depth pixels or an autoencoder's latents; and what a folder that
//! was trained here says beyond what diffusers' files can say.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    atomic_file::write_atomically,
    error::{AtPath, Error, Result},
    nn::{
        autoencoder_kl::{AutoencoderKL, Posterior},
        diffusion::config::ClassEmbed,
    },
    vocabulary::MASK_CLASSES,
};

/// The file that a folder trained here has beside `model_index.json`.
pub const EXTRAS: &str = "synecho.json";

/// What diffusers' own files do not say. A folder without the file is a stock one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extras {
    /// Side of the blocks that are folded into channels: 1 for plain pixels. Absent: the networks
    /// denoise an autoencoder's latents, or pixels where the folder has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_to_depth: Option<i64>,
    /// An unconditional model's autoencoder is in `vae/`.
    #[serde(default)]
    pub unconditional_latent: bool,
    /// The U-Net's last input channels are the mask's structures.
    #[serde(default)]
    pub mask_channels: bool,
    /// What the class labels 0, 1, … mean (`2CH ED`, …).
    #[serde(default)]
    pub classes: Vec<String>,
    /// The prompt's template in training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Whether this is a stock pipeline: the file was not there.
    #[serde(skip)]
    pub stock: bool,
}

impl Extras {
    /// Reads `synecho.json` of a pipeline's folder, if it has one.
    ///
    /// # Errors
    /// The file is damaged, or from a later version.
    pub fn read(dir: &Path) -> Result<Self> {
        let file = dir.join(EXTRAS);
        if !file.is_file() {
            return Ok(Self { stock: true, ..Self::default() });
        }
        let text = std::fs::read_to_string(&file).at_path(&file, "cannot read")?;
        let this: Self = serde_json::from_str(&text).map_err(|e| {
            Error::input(format!("not what Synecho writes: {e}")).at(&file).help("copy the folder again")
        })?;
        match this.space_to_depth {
            Some(side) if !(1..=64).contains(&side) => {
                Err(Error::input(format!("`space_to_depth` is {side}")).at(&file).help("1 to 64"))
            }
            _ => Ok(this),
        }
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::failure(format!("cannot write {EXTRAS}: {e}")))?;
        write_atomically(&dir.join(EXTRAS), format!("{text}\n").as_bytes())
    }

    /// Whether the networks denoise an autoencoder's latents. A stock text pipeline's do, a stock
    /// unconditional one's do not.
    pub fn latent(&self, text: bool) -> bool {
        self.space_to_depth.is_none() && (text || self.unconditional_latent)
    }

    /// The label of images whose class was left out in training: the one behind all that have a meaning.
    pub fn no_class(&self, embedding: Option<ClassEmbed>) -> Option<i64> {
        let meant = self.classes.len() as i64;
        match embedding {
            Some(ClassEmbed::Table { classes }) if meant > 0 && classes == meant + 1 => Some(meant),
            _ => None,
        }
    }

    /// The space where it is not latent.
    pub fn space(&self) -> Space {
        Space::Pixels { patch: self.space_to_depth.unwrap_or(1) }
    }
}

/// Between images (batch, channels, height, width) in -1..1 and what is denoised.
pub enum Space {
    /// Blocks of `patch` x `patch` pixels are channels: `torch.nn.PixelUnshuffle`.
    Pixels {
        patch: i64,
    },
    Latent(Box<AutoencoderKL>),
}

/// What is denoised, from what the encoder says of images: drawn by `noise` (standard normal, of the mean's shape),
/// or the mean.
///
/// # Errors
/// The noise has another shape.
pub fn latents(vae: &AutoencoderKL, posterior: &Posterior, noise: Option<&Tensor>) -> Result<Tensor> {
    let mean = posterior.mode();
    let latents = match noise {
        Some(noise) => posterior.sample(&noise.to_device(mean.device()).to_kind(mean.kind()))?,
        None => mean,
    };
    Ok(latents * vae.config().scaling_factor)
}

impl Space {
    /// Pixels along the side of one place of what is denoised.
    pub fn factor(&self) -> i64 {
        match self {
            Self::Pixels { patch } => *patch,
            Self::Latent(vae) => vae.config().size_factor(),
        }
    }

    /// Channels of the images, where `channels` are denoised.
    pub fn image_channels(&self, channels: i64) -> i64 {
        match self {
            Self::Pixels { patch } => channels / (patch * patch),
            Self::Latent(vae) => vae.config().out_channels,
        }
    }

    /// Channels that are denoised, where the space alone says.
    pub fn latent_channels(&self) -> Option<i64> {
        match self {
            Self::Pixels { .. } => None,
            Self::Latent(vae) => Some(vae.config().latent_channels),
        }
    }

    /// Images to what is denoised. Latents are drawn from the posterior by `noise` (standard normal, of
    /// their shape), or are its mean.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn encode(&self, images: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Pixels { patch: 1 } => Ok(images.shallow_clone()),
            Self::Pixels { patch } => Ok(images.f_pixel_unshuffle(*patch)?),
            Self::Latent(vae) => latents(vae, &vae.encode(images)?, noise),
        }
    }

    /// The way back.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(&self, sample: &Tensor) -> Result<Tensor> {
        match self {
            Self::Pixels { patch: 1 } => Ok(sample.shallow_clone()),
            Self::Pixels { patch } => Ok(sample.f_pixel_shuffle(*patch)?),
            Self::Latent(vae) => vae.decode(&(sample / vae.config().scaling_factor)),
        }
    }
}

/// Input channels that a mask takes where one place stands for `factor` x `factor` pixels.
pub fn mask_channels(factor: i64) -> i64 {
    (MASK_CLASSES as i64 - 1) * factor * factor
}

/// Masks (batch, height, width) of class indices as input channels: each structure as 0 or 1, folded
/// space-to-depth, (batch, [`mask_channels`], height / factor, width / factor), f32.
///
/// # Errors
/// A height or width that is no multiple of `factor`.
pub fn mask_to_channels(masks: &Tensor, factor: i64) -> Result<Tensor> {
    let structures: Vec<Tensor> = (1..MASK_CLASSES as i64).map(|class| masks.eq(class)).collect();
    Ok(Tensor::f_stack(&structures, 1)?.to_kind(Kind::Float).f_pixel_unshuffle(factor)?)
}

/// The same of control images (batch, 3, height, width) that show class k as grey k / 3.
pub(super) fn mask_channels_of_grey(control: &Tensor, factor: i64) -> Result<Tensor> {
    let classes = (control.f_select(1, 0)?.to_kind(Kind::Float) * (MASK_CLASSES as f64 - 1.0)).round();
    Ok(mask_to_channels(&classes, factor)?.to_kind(control.kind()))
}

/// Masks (batch, height, width) of class indices as a ControlNet sees them: grey k / 3 in three
/// channels, f32.
pub fn mask_to_control(masks: &Tensor) -> Tensor {
    let grey = masks.to_kind(Kind::Float) / (MASK_CLASSES as f64 - 1.0);
    grey.unsqueeze(1).repeat([1, 3, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_showing_a_mask_say_the_same() {
        let masks = Tensor::from_slice(&[0i64, 1, 2, 3, 3, 2, 1, 0, 0, 0, 1, 1, 2, 2, 3, 3]).view([1, 4, 4]);
        let channels = mask_to_channels(&masks, 2).unwrap();
        assert_eq!(channels.size(), [1, mask_channels(2), 2, 2]);
        assert_eq!(mask_channels_of_grey(&mask_to_control(&masks), 2).unwrap(), channels);
        // The atrium's top left block holds class 2 at its right, class 3 at its left below.
        let back = channels.pixel_shuffle(2);
        assert_eq!(back.select(1, 2), masks.eq(3).to_kind(Kind::Float));
    }

    #[test]
    fn space_to_depth_loses_nothing() {
        let images = Tensor::arange(2 * 8 * 8, (Kind::Float, tch::Device::Cpu)).view([2, 1, 8, 8]);
        let space = Space::Pixels { patch: 4 };
        let folded = space.encode(&images, None).unwrap();
        assert_eq!(folded.size(), [2, 16, 2, 2]);
        assert_eq!(space.decode(&folded).unwrap(), images);
        assert_eq!((space.factor(), space.image_channels(16)), (4, 1));
    }

    #[test]
    fn extras_survive_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let extras = Extras { space_to_depth: Some(4), mask_channels: true, ..Extras::default() };
        extras.write(dir.path()).unwrap();
        assert_eq!(Extras::read(dir.path()).unwrap(), extras);
        std::fs::write(dir.path().join(EXTRAS), "{\"space_to_depth\": 0}").unwrap();
        assert!(Extras::read(dir.path()).unwrap_err().to_string().contains("`space_to_depth` is 0"));
    }
}
