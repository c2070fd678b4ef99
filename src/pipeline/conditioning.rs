//! What a batch is conditioned on, and what the networks predict under it.

use tch::Tensor;

use super::{Pipeline, Prepared, loaded_networks::PipelineNetworks};
use crate::error::{Error, Result};

/// The networks with everything but the sample and the timestep.
pub(super) struct Conditioning<'a> {
    networks: &'a PipelineNetworks,
    /// A row for each row that the networks see: negative texts first.
    embeddings: Option<Tensor>,
    control: Option<Tensor>,
    class_labels: Option<Tensor>,
    /// The guidance scale, where guidance is on.
    guidance: Option<f64>,
    conditioning_scale: f64,
}

impl<'a> Conditioning<'a> {
    pub fn new(pipeline: &'a Pipeline, prepared: &Prepared, images: i64) -> Result<Self> {
        let request = prepared.request;
        let no_class = match &pipeline.networks {
            PipelineNetworks::Unconditional(networks) => networks.no_class.filter(|_| request.guidance > 1.0),
            PipelineNetworks::Latent(_) => None,
        };
        let negative_text = prepared.texts.as_ref().is_some_and(|texts| texts.negative.is_some());
        let guided = negative_text || no_class.is_some();
        let each = |tensor: &Tensor, what: &str| -> Result<Tensor> {
            let (given, mut shape) = (tensor.size()[0], vec![images]);
            if given != 1 && given != images {
                return Err(Error::failure(format!("{given} {what} for {images} images")));
            }
            shape.resize(tensor.dim(), -1);
            Ok(tensor.f_expand(shape.as_slice(), false)?.f_contiguous()?)
        };
        let embeddings = match &prepared.texts {
            None => None,
            Some(texts) => {
                let positive = each(&texts.positive, "prompts")?;
                Some(match &texts.negative {
                    None => positive,
                    Some(negative) => Tensor::f_cat(&[each(negative, "prompts")?, positive], 0)?,
                })
            }
        };
        let control = match &prepared.control {
            None => None,
            Some(control) if guided => {
                let negative = prepared.negative_control.as_ref().unwrap_or(control);
                let both = [each(negative, "control images")?, each(control, "control images")?];
                Some(Tensor::f_cat(&both, 0)?)
            }
            Some(control) => Some(each(control, "control images")?),
        };
        let labels = match request.class_labels.as_slice() {
            [] => None,
            labels => {
                let labels = each(&Tensor::from_slice(labels).to_device(pipeline.device), "class labels")?;
                Some(match no_class {
                    None => labels,
                    Some(no_class) => Tensor::f_cat(&[&labels.full_like(no_class), &labels], 0)?,
                })
            }
        };
        Ok(Self {
            networks: &pipeline.networks,
            embeddings,
            control,
            class_labels: labels,
            guidance: guided.then_some(request.guidance),
            conditioning_scale: request.conditioning_scale,
        })
    }

    /// The networks' prediction for a batch, guided.
    pub fn predict(&self, input: &Tensor, timestep: f32) -> Result<Tensor> {
        let Some(guidance) = self.guidance else { return self.unguided(input, timestep) };
        let predicted = self.unguided(&Tensor::f_cat(&[input, input], 0)?, timestep)?;
        match predicted.f_chunk(2, 0)?.as_slice() {
            [negative, positive] => Ok(negative + (positive - negative) * guidance),
            _ => Err(Error::failure("the U-Net gave another batch than it was given")),
        }
    }

    /// What the networks predict for each row that they see.
    fn unguided(&self, input: &Tensor, timestep: f32) -> Result<Tensor> {
        let timesteps = Tensor::from_slice(&[timestep]).to_device(input.device());
        let latent = match self.networks {
            PipelineNetworks::Unconditional(networks) => {
                return networks.unet.forward(input, &timesteps, self.class_labels.as_ref());
            }
            PipelineNetworks::Latent(latent) => latent,
        };
        let Some(texts) = &self.embeddings else {
            return Err(Error::failure("a text pipeline without an encoded text"));
        };
        match (&latent.controlnet, &self.control) {
            (Some(controlnet), Some(control)) => {
                let (down, mid) =
                    controlnet.forward(input, &timesteps, texts, control, self.conditioning_scale)?;
                latent.unet.forward(input, &timesteps, texts, None, Some(&down), Some(&mid))
            }
            (None, Some(mask)) => {
                let input = Tensor::f_cat(&[input, mask], 1)?;
                latent.unet.forward(&input, &timesteps, texts, None, None, None)
            }
            _ => latent.unet.forward(input, &timesteps, texts, None, None, None),
        }
    }
}
