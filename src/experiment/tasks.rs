//! What a task is trained with. The preset fills in the keys that the user omitted; each fault of the
//! paper's code has its own switch.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    augment::{Augment, AugmentSpec},
    preset::Preset,
    recipe::{Budget, ReportOn, Schedule, TrainingRecipe, UpdateRule},
};
use crate::vocabulary::{
    Backbone, CHECKPOINT_ENDINGS, Label, MaskDecoding, Pairing, Precision, SegmentationNetwork,
};

/// Declares a task's section as [`layered!`] does, in the order in which its keys are written. Those in `recipe` blocks
/// belong to the [`TrainingRecipe`] that the resolved section holds as one field. `[absent if "f"]` omits a key from
/// the resolved spec where f is true.
macro_rules! task_section {
    ($(#[$meta:meta])* $typed:ident => $resolved:ident { $(
        recipe { $( $shared:ident : $shared_ty:ty $([absent if $shared_off:literal])? ),* $(,)? }
        own { $( $(#[$doc:meta])* $own:ident : $own_ty:ty $([absent if $own_off:literal])? ),* $(,)? }
    )* }) => {
        #[doc = concat!("As typed; see [`", stringify!($resolved), "`].")]
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $typed {
            $( $( pub $shared: Option<$shared_ty>, )* $( pub $own: Option<$own_ty>, )* )*
            pub augment: Option<AugmentSpec>,
        }

        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $resolved {
            pub recipe: TrainingRecipe,
            $( $( $(#[$doc])* pub $own: $own_ty, )* )*
        }

        impl $typed {
            /// The typed fields over `base`'s.
            pub fn over(self, base: $resolved) -> $resolved {
                $resolved {
                    recipe: TrainingRecipe {
                        $( $( $shared: self.$shared.unwrap_or(base.recipe.$shared), )* )*
                        augment: self.augment.unwrap_or_default().over(base.recipe.augment),
                    },
                    $( $( $own: self.$own.unwrap_or(base.$own), )* )*
                }
            }
        }

        impl Serialize for $resolved {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[derive(Serialize)]
                struct Flat {
                    $(
                        $( $(#[serde(skip_serializing_if = $shared_off)])? $shared: $shared_ty, )*
                        $( $(#[serde(skip_serializing_if = $own_off)])? $own: $own_ty, )*
                    )*
                    augment: Augment,
                }
                let all = self.clone();
                let flat = Flat {
                    $( $( $shared: all.recipe.$shared, )* $( $own: all.$own, )* )*
                    augment: all.recipe.augment,
                };
                flat.serialize(serializer)
            }
        }
    };
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

fn is_nothing(value: &f64) -> bool {
    *value == 0.0
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The loss of a segmentation network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentationLoss {
    /// Weighted cross-entropy (the paper's).
    CrossEntropy,
    /// The same plus one minus the soft Dice of the three structures over the batch: a small structure
    /// counts as much as a large one, so that the atrium is learned from any initial weights.
    DiceCrossEntropy,
}

/// How the trained parameters of a classifier are kept to a budget: whole tensors are trained from the last
/// one backwards, the others are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// As the paper's code does it: until the budget is reached, so that the tensor that crosses it is trained
    /// too. Frozen batch norms still normalise by the batch and move their running statistics.
    Reference,
    /// Never above the budget (but the last layer is always trained). What is frozen is run as in
    /// evaluation: batch norms by their running statistics, nothing dropped below the first trained tensor.
    Exact,
}

task_section! {
    /// Segmentation: a U-Net on (image, mask) pairs, trained by Adam or AdamW.
    SegmentationSpec => Segmentation {
        recipe { preset: Preset }
        own { model: SegmentationNetwork }
        recipe {
            image_size: usize,
            epochs: usize,
            budget: Option<Budget> [absent if "Option::is_none"],
            batch_size: usize,
            learning_rate: f64,
            final_learning_rate: f64,
            schedule: Schedule,
            warmup_steps: usize,
        }
        own {
            loss: SegmentationLoss,
            /// Cross-entropy weights: background, endocardium, myocardium, atrium.
            class_weights: Vec<f64>,
            /// Resolutions that the loss looks at, the image's own first: each next one has half the weight.
            deep_supervision: usize [absent if "is_one"],
            /// AdamW's; 0: Adam.
            weight_decay: f64 [absent if "is_nothing"],
            /// Greatest norm of the gradient; 0: not limited.
            clip: f64 [absent if "is_nothing"],
            /// Share of the old weights in the average that is validated and kept; 0: the weights themselves.
            ema: f64 [absent if "is_nothing"],
        }
        recipe { validate_every: usize, precision: Precision }
        own {
            /// U-Net channels from top to bottom; strides are 2. Empty: as many as the network has for images of this
            /// size.
            channels: Vec<i64>,
            /// Averages the predictions of an image and of its mirror image.
            flip_test: bool [absent if "is_false"],
            /// Of each structure only the largest piece is kept.
            largest_component: bool [absent if "is_false"],
        }
        recipe { shuffle: bool }
        own { pairing: Pairing, mask_decoding: MaskDecoding }
        recipe { val_loss_starts_from_train: bool }
        own {
            /// Fault when true: one image without a structure makes that structure's mean NaN, and no
            /// checkpoint is chosen at that epoch.
            nan_poisons_dice: bool,
        }
        recipe { report_on: ReportOn }
        own {}
    }
}

task_section! {
    /// Classification: torchvision's networks, trained by SGD.
    ClassificationSpec => Classification {
        recipe { preset: Preset }
        own {
            label: Label,
            /// Each is trained and measured.
            models: Vec<Backbone>,
            /// A checkpoint of torchvision's, or a folder that holds one for each model ([`checkpoints_in`]); empty: from
            /// scratch.
            weights: PathBuf,
            /// How many parameters are trained, in tensors from the last one backwards; 0: all.
            trainable_parameters: usize,
            freeze: Freeze,
        }
        recipe {
            image_size: usize,
            epochs: usize,
            budget: Option<Budget> [absent if "Option::is_none"],
        }
        own {
            /// Greatest number of synthetic images of each class (the paper's: 800); 0: as many as `ratio` says.
            synthetic_per_class: usize [absent if "is_zero"],
        }
        recipe {
            batch_size: usize,
            learning_rate: f64,
            final_learning_rate: f64,
            schedule: Schedule,
            warmup_steps: usize,
        }
        own { momentum: f64, weight_decay: f64 }
        recipe { validate_every: usize, precision: Precision, shuffle: bool }
        own {
            /// Normalise with ImageNet's mean and standard deviation (needed by pretrained weights);
            /// otherwise (x - 0.5) / 0.5.
            imagenet_normalise: bool,
        }
        recipe { val_loss_starts_from_train: bool, report_on: ReportOn }
        own {}
    }
}

impl Segmentation {
    pub fn update_rule(&self) -> UpdateRule {
        match self.weight_decay {
            0.0 => UpdateRule::ADAM,
            weight_decay => UpdateRule::AdamW { weight_decay },
        }
    }

    pub fn preset(preset: Preset) -> Self {
        let corrected = Self {
            recipe: TrainingRecipe {
                preset,
                image_size: 256,
                epochs: 300,
                budget: None,
                batch_size: 4,
                learning_rate: 1e-3,
                final_learning_rate: 1e-4,
                schedule: Schedule::Cosine,
                warmup_steps: 0,
                validate_every: 2,
                precision: Precision::F32,
                shuffle: true,
                val_loss_starts_from_train: false,
                report_on: ReportOn::Test,
                augment: Augment::preset(preset),
            },
            model: SegmentationNetwork::MonaiUnet,
            loss: SegmentationLoss::CrossEntropy,
            class_weights: vec![0.05, 0.25, 0.35, 0.35],
            deep_supervision: 1,
            weight_decay: 0.0,
            clip: 0.0,
            ema: 0.0,
            channels: SegmentationNetwork::MonaiUnet.planned_channels(256),
            flip_test: false,
            largest_component: false,
            pairing: Pairing::Manifest,
            mask_decoding: MaskDecoding::ClassIndices,
            nan_poisons_dice: false,
        };
        match preset {
            Preset::Corrected => corrected,
            Preset::PaperCode => Self {
                recipe: TrainingRecipe {
                    schedule: Schedule::CosinePeriodInEpochsSteppedPerBatch,
                    ..corrected.recipe.with_paper_faults()
                },
                pairing: Pairing::SortedNames,
                mask_decoding: MaskDecoding::GreyPerImage,
                nan_poisons_dice: true,
                ..corrected
            },
            Preset::Strong => Self {
                recipe: TrainingRecipe {
                    epochs: 100,
                    batch_size: 16,
                    learning_rate: 2e-3,
                    final_learning_rate: 0.0,
                    schedule: Schedule::Polynomial,
                    warmup_steps: 100,
                    precision: Precision::Auto,
                    ..corrected.recipe
                },
                model: SegmentationNetwork::PlainUnet,
                loss: SegmentationLoss::DiceCrossEntropy,
                class_weights: vec![1.0; 4],
                deep_supervision: 3,
                weight_decay: 0.01,
                clip: 12.0,
                ema: 0.999,
                channels: vec![16, 32, 64, 128, 160],
                largest_component: true,
                ..corrected
            },
        }
    }
}

impl Classification {
    pub fn update_rule(&self) -> UpdateRule {
        UpdateRule::Sgd { momentum: self.momentum, weight_decay: self.weight_decay }
    }

    /// The file of this model's weights; None: from scratch. Of a folder the one file that is called after the model, or
    /// where there is none (or several) the name that it should have.
    pub fn weights_of(&self, model: Backbone) -> Option<PathBuf> {
        let weights = &self.weights;
        let file = match weights.is_dir() {
            false => weights.clone(),
            true => match checkpoints_in(weights, model).as_slice() {
                [only] => only.clone(),
                _ => weights.join(format!("{model}.safetensors")),
            },
        };
        (!weights.as_os_str().is_empty()).then_some(file)
    }

    pub fn preset(preset: Preset) -> Self {
        let corrected = Self {
            recipe: TrainingRecipe {
                preset,
                image_size: 224,
                epochs: 30,
                budget: None,
                batch_size: 32,
                learning_rate: 1e-3,
                final_learning_rate: 1e-3,
                schedule: Schedule::Constant,
                warmup_steps: 0,
                validate_every: 1,
                precision: Precision::F32,
                shuffle: true,
                val_loss_starts_from_train: false,
                report_on: ReportOn::Test,
                augment: Augment::preset(preset),
            },
            label: Label::Phase,
            models: vec![Backbone::Resnet18],
            weights: PathBuf::new(),
            trainable_parameters: 0,
            freeze: Freeze::Reference,
            synthetic_per_class: 0,
            momentum: 0.9,
            weight_decay: 0.0,
            imagenet_normalise: true,
        };
        match preset {
            // Refused before it is asked for.
            Preset::Corrected | Preset::Strong => corrected,
            Preset::PaperCode => Self {
                recipe: corrected.recipe.with_paper_faults(),
                trainable_parameters: 2_000_000,
                imagenet_normalise: false,
                synthetic_per_class: 800,
                ..corrected
            },
        }
    }
}

/// The files in a folder that are called after a model: `MODEL.safetensors`, and only where there is none `MODEL.pth` (or
/// another of PyTorch's endings) and the names of torchvision's downloads, `MODEL-f37072fd.pth` and
/// `MODEL_rwightman-7f5810bc.pth`.
pub fn checkpoints_in(folder: &Path, model: Backbone) -> Vec<PathBuf> {
    let safetensors = folder.join(format!("{model}.safetensors"));
    if safetensors.is_file() {
        return vec![safetensors];
    }
    let is_hash = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_named = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let rest = path.file_stem().and_then(|stem| stem.to_str()?.strip_prefix(model.as_str()));
        let download = |rest: &str| {
            rest.strip_prefix("_rwightman").unwrap_or(rest).strip_prefix('-').is_some_and(is_hash)
        };
        ending.is_some_and(|ending| CHECKPOINT_ENDINGS.contains(&ending))
            && rest.is_some_and(|rest| rest.is_empty() || download(rest))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| is_named(path) && path.is_file()).collect();
    found.sort();
    found
}
