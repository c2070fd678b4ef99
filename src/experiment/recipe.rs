//! How a network is trained, whatever its task is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{augment::Augment, preset::Preset};
use crate::vocabulary::Precision;

/// Training by optimizer steps in place of epochs, so that every arm gets as many, however many images it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub steps: usize,
    /// Steps between two validations; 0, the default: a twentieth of `steps`.
    #[serde(default)]
    pub validate_every: usize,
}

impl Budget {
    /// Validations have a number of their own from here on.
    fn resolved(self) -> Self {
        let every = if self.validate_every == 0 { self.steps.div_ceil(20) } else { self.validate_every };
        Self { validate_every: every, ..self }
    }
}

/// How a gradient changes the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UpdateRule {
    /// `torch.optim.Adam(betas, eps)` without weight decay.
    Adam { beta1: f64, beta2: f64, eps: f64 },
    /// `torch.optim.AdamW(eps = 1e-8, betas = (0.9, 0.999), weight_decay)`.
    AdamW { weight_decay: f64 },
    /// `torch.optim.SGD(momentum, weight_decay)`, dampening 0.
    Sgd { momentum: f64, weight_decay: f64 },
}

impl UpdateRule {
    /// PyTorch's defaults.
    pub const ADAM: Self = Self::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
}

impl fmt::Display for UpdateRule {
    /// As a report names it: `SGD with momentum 0.9 and weight decay 0`. PyTorch's defaults are not mentioned.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::ADAM => write!(f, "Adam"),
            Self::Adam { beta1, beta2, eps } => {
                write!(f, "Adam with betas {beta1} and {beta2} and epsilon {eps}")
            }
            Self::AdamW { weight_decay } => write!(f, "AdamW with weight decay {weight_decay}"),
            Self::Sgd { momentum, weight_decay } => {
                write!(f, "SGD with momentum {momentum} and weight decay {weight_decay}")
            }
        }
    }
}

/// How the learning rate goes from `learning_rate` to `final_learning_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    Constant,
    /// Half a cosine over all epochs, set at the start of each epoch.
    Cosine,
    /// Half a cosine over all epochs, set at each optimizer step.
    CosinePerStep,
    /// The part of the training that is left, to the power of 0.9, as nnU-Net has it; set at each optimizer step.
    Polynomial,
    /// Fault: the period is counted in epochs but the schedule is stepped per batch, so that the rate
    /// swings up and down many times.
    CosinePeriodInEpochsSteppedPerBatch,
}

/// The patients whose figures are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportOn {
    Test,
    /// Fault: the patients that the checkpoint was chosen on.
    Val,
}

/// The settings that every task has. In the TOML they stand among the task's own.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRecipe {
    pub preset: Preset,
    /// Pixels; images are resized to a square of this side.
    pub image_size: usize,
    /// 0 where there is a `budget`.
    pub epochs: usize,
    /// `{ steps = N }` in place of `epochs`.
    pub budget: Option<Budget>,
    pub batch_size: usize,
    /// The optimizer's rate at the start.
    pub learning_rate: f64,
    /// The rate at the end of the schedule.
    pub final_learning_rate: f64,
    pub schedule: Schedule,
    /// Optimizer steps over which the rate rises from almost 0 to the schedule's; 0: none.
    pub warmup_steps: usize,
    /// Epochs between validations (the last epoch is always validated).
    pub validate_every: usize,
    pub precision: Precision,
    pub shuffle: bool,
    /// Fault when true: the validation loss is summed on top of the epoch's training loss.
    pub val_loss_starts_from_train: bool,
    pub report_on: ReportOn,
    pub augment: Augment,
}

impl TrainingRecipe {
    /// With a budget, steps take the place of epochs.
    pub(super) fn budgeted(self) -> Self {
        let Some(budget) = self.budget else { return self };
        Self {
            budget: Some(budget.resolved()),
            epochs: 0,
            // Arms with other numbers of images have other epochs: at the same step all have the same rate.
            schedule: match self.schedule {
                Schedule::Cosine => Schedule::CosinePerStep,
                other => other,
            },
            ..self
        }
    }

    /// The faults of the paper's code that both tasks have, but for those of augmentation.
    pub(super) fn with_paper_faults(&self) -> Self {
        Self { shuffle: false, val_loss_starts_from_train: true, report_on: ReportOn::Val, ..self.clone() }
    }

    /// How long it trains, in steps or in epochs.
    pub fn length(&self) -> usize {
        self.budget.map_or(self.epochs, |budget| budget.steps)
    }

    /// The same for so many steps or epochs.
    pub fn of_length(&self, length: usize) -> Self {
        match self.budget {
            Some(budget) => Self { budget: Some(Budget { steps: length, ..budget }), ..self.clone() },
            None => Self { epochs: length, ..self.clone() },
        }
    }

    /// The same for a share of the steps or epochs, at least one.
    pub fn shortened(&self, share: f64) -> Self {
        self.of_length(((self.length() as f64 * share).round() as usize).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Classification, Segmentation};

    #[test]
    fn reports_name_the_rule_that_trains() {
        assert_eq!(Segmentation::preset(Preset::Corrected).update_rule().to_string(), "Adam");
        let task =
            Classification { momentum: 0.5, weight_decay: 0.01, ..Classification::preset(Preset::Corrected) };
        assert_eq!(task.update_rule().to_string(), "SGD with momentum 0.5 and weight decay 0.01");
        let other = UpdateRule::Adam { beta1: 0.5, beta2: 0.999, eps: 1e-8 };
        assert_eq!(other.to_string(), "Adam with betas 0.5 and 0.999 and epsilon 0.00000001");
    }
}
