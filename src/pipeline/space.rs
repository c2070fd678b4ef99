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
    sector::IN_SECTOR,
    vocabulary::MASK_CLASSES,
};

/// The file that a folder trained here has beside `model_index.json`.
pub const EXTRAS: &str = "synecho.json";

/// What diffusers' own files do not say. A folder without the file is a stock one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// The networks are given the ultrasound sector with the mask: the last structure of `mask_channels`, or the blue
    /// channel of a control image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sector: bool,
    /// Images without their prompt were trained without the structures of their mask, too: guidance leads away from both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drops_masks: bool,
    /// Share of the blurred mask in what sampling begins with, above 0 and below 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_start: Option<f64>,
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
        if let Some(side) = this.space_to_depth.filter(|side| !(1..=64).contains(side)) {
            return Err(Error::input(format!("`space_to_depth` is {side}")).at(&file).help("1 to 64"));
        }
        if let Some(share) = this.mask_start.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            return Err(Error::input(format!("`mask_start` is {share}"))
                .at(&file)
                .help("above 0 and below 1"));
        }
        Ok(this)
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

    /// Where sampling begins if the mask is to show in it: `share` of the blurred mask (batch, height, width), and noise
    /// for the rest of the variance (COMET, 2026). For pixels.
    ///
    /// # Errors
    /// Shapes that do not fit, or an autoencoder's latents.
    pub fn start_at_mask(&self, noise: &Tensor, masks: &Tensor, share: f64) -> Result<Tensor> {
        if let Self::Latent(_) = self {
            return Err(
                Error::input("an autoencoder's latents cannot start at a mask").help("set mask_start = 0")
            );
        }
        let picture = blurred(masks)?;
        let channels = self.image_channels(noise.size()[1]);
        let picture = self.encode(&picture.f_expand([-1, channels, -1, -1], false)?.f_contiguous()?, None)?;
        Ok(picture.to_kind(noise.kind()) * share + noise * (1.0 - share * share).sqrt())
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

/// Labels that become channels: the structures, and the sector where networks are given it.
fn labels(sector: bool) -> i64 {
    MASK_CLASSES as i64 - 1 + i64::from(sector)
}

/// Input channels that a mask takes where one place stands for `factor` x `factor` pixels.
pub fn mask_channels(factor: i64, sector: bool) -> i64 {
    labels(sector) * factor * factor
}

/// Masks (batch, height, width) of class indices as input channels: each structure as 0 or 1, and the sector
/// ([`IN_SECTOR`] and all structures) where networks are given it, folded space-to-depth, (batch, [`mask_channels`],
/// height / factor, width / factor), f32.
///
/// # Errors
/// A height or width that is no multiple of `factor`.
pub fn mask_to_channels(masks: &Tensor, factor: i64, sector: bool) -> Result<Tensor> {
    let mut planes: Vec<Tensor> = (1..MASK_CLASSES as i64).map(|class| masks.eq(class)).collect();
    if sector {
        planes.push(masks.gt(0));
    }
    Ok(Tensor::f_stack(&planes, 1)?.to_kind(Kind::Float).f_pixel_unshuffle(factor)?)
}

/// Masks (batch, height, width) without their structures: what is left is the sector, where networks are given it.
pub fn without_structures(masks: &Tensor, sector: bool) -> Tensor {
    if sector { masks.gt(0).to_kind(masks.kind()) * i64::from(IN_SECTOR) } else { masks.zeros_like() }
}

/// The mask that control images (batch, 3, height, width) show: (batch, height, width), class indices, with a sector
/// also [`IN_SECTOR`].
pub(super) fn mask_of_control(control: &Tensor, sector: bool) -> Result<Tensor> {
    let plane = |channel: i64| control.f_select(1, channel).map(|plane| plane.to_kind(Kind::Float));
    let classes = (plane(0)? * (MASK_CLASSES as f64 - 1.0)).round();
    if !sector {
        return Ok(classes);
    }
    let background_in_sector = classes.eq(0).logical_and(&plane(2)?.ge(0.5));
    Ok(classes.f_masked_fill(&background_in_sector, i64::from(IN_SECTOR))?)
}

/// Masks (batch, height, width) of class indices as a ControlNet sees them: grey k / 3 in three channels, f32. With a
/// sector the third channel, blue, is 1 in it and 0 outside.
pub fn mask_to_control(masks: &Tensor, sector: bool) -> Tensor {
    let in_sector = masks.eq(i64::from(IN_SECTOR));
    let grey = masks.masked_fill(&in_sector, 0i64).to_kind(Kind::Float) / (MASK_CLASSES as f64 - 1.0);
    let blue = if sector { masks.gt(0).to_kind(Kind::Float) } else { grey.shallow_clone() };
    Tensor::stack(&[&grey, &grey, &blue], 1)
}

/// Masks (batch, height, width) of class indices as blurred pictures (batch, 1, height, width) in -1..1, f32: class k as
/// grey k / 3, with a Gaussian of a 32nd of the width.
fn blurred(masks: &Tensor) -> Result<Tensor> {
    let grey = mask_to_control(masks, false).f_narrow(1, 0, 1)? * 2.0 - 1.0;
    let width = masks.size()[2];
    let (sigma, reach) = (width as f64 / 32.0, (width / 11).max(1));
    let at = Tensor::f_arange_start(-reach, reach + 1, (Kind::Float, masks.device()))?;
    let bell: Tensor = (at.square() / (-2.0 * sigma * sigma)).exp();
    let bell = &bell / bell.sum(Kind::Float);
    let padded = grey.f_replication_pad2d([reach; 4])?;
    let along = |t: &Tensor, kernel: Tensor| t.f_conv2d::<Tensor>(&kernel, None, 1, 0, 1, 1);
    let rows = along(&padded, bell.f_view([1, 1, 1, -1])?)?;
    Ok(along(&rows, bell.f_view([1, 1, -1, 1])?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_showing_a_mask_say_the_same() {
        let masks = Tensor::from_slice(&[0i64, 1, 2, 3, 3, 2, 1, 0, 0, 0, 1, 1, 2, 2, 3, 3]).view([1, 4, 4]);
        let channels = mask_to_channels(&masks, 2, false).unwrap();
        assert_eq!(channels.size(), [1, mask_channels(2, false), 2, 2]);
        assert_eq!(
            mask_of_control(&mask_to_control(&masks, false), false).unwrap(),
            masks.to_kind(Kind::Float)
        );
        // The atrium's top left block holds class 2 at its right, class 3 at its left below.
        let back = channels.pixel_shuffle(2);
        assert_eq!(back.select(1, 2), masks.eq(3).to_kind(Kind::Float));
    }

    #[test]
    fn the_sector_is_a_label_of_its_own() {
        let masks = Tensor::from_slice(&[0i64, 4, 1, 2, 3, 0, 4, 4, 1]).view([1, 3, 3]);
        let control = mask_to_control(&masks, true);
        assert_eq!(mask_of_control(&control, true).unwrap(), masks.to_kind(Kind::Float));
        // Without it networks see what they always saw.
        let plain = masks.masked_fill(&masks.eq(4), 0i64);
        assert_eq!(control.narrow(1, 0, 2), mask_to_control(&plain, false).narrow(1, 0, 2));
        assert_eq!(mask_to_channels(&masks, 1, false).unwrap(), mask_to_channels(&plain, 1, false).unwrap());
        assert_eq!(without_structures(&masks, true), masks.gt(0).to_kind(Kind::Int64) * 4);
        assert_eq!(without_structures(&masks, false), masks.zeros_like());
        let channels = mask_to_channels(&masks, 1, true).unwrap();
        assert_eq!(channels.size(), [1, mask_channels(1, true), 3, 3]);
        assert_eq!(channels.select(1, 3), masks.gt(0).to_kind(Kind::Float));
    }

    #[test]
    fn a_start_at_the_mask_keeps_the_spread_of_the_noise() {
        let masks = Tensor::full([64, 32, 32], 3i64, (Kind::Int64, tch::Device::Cpu));
        tch::manual_seed(1);
        let noise = Tensor::randn([64, 4, 16, 16], (Kind::Float, tch::Device::Cpu));
        let start = Space::Pixels { patch: 2 }.start_at_mask(&noise, &masks, 0.6).unwrap();
        let off = (start.mean(Kind::Float) - 0.6).abs().double_value(&[]);
        assert!(off < 0.02 && (start.std(true).double_value(&[]) - 0.8).abs() < 0.02);
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
