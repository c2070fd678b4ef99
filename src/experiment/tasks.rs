//! What a task is trained with. The preset fills in what the user left out; each fault of the
//! paper's code is a switch of its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::vocabulary::{Backbone, Label, MaskDecoding, Pairing, Precision, SegmentationNetwork};

/// Declares a section as typed (every field optional) and as resolved (every field there). `tables`
/// are sections within the section, each declared likewise.
macro_rules! layered {
    ($(#[$meta:meta])* $typed:ident => $resolved:ident {
        $( $(#[$doc:meta])* $field:ident : $ty:ty ),* $(,)?
    } $( tables { $( $(#[$table_doc:meta])* $table:ident : $table_typed:ty => $table_resolved:ty ),* $(,)? } )?) => {
        #[doc = concat!("As typed; see [`", stringify!($resolved), "`].")]
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $typed {
            $( pub $field: Option<$ty>, )*
            $( $( pub $table: Option<$table_typed>, )* )?
        }

        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $resolved {
            $( $(#[$doc])* pub $field: $ty, )*
            $( $( $(#[$table_doc])* pub $table: $table_resolved, )* )?
        }

        impl $typed {
            /// The typed fields over `base`'s.
            pub fn over(self, base: $resolved) -> $resolved {
                $resolved {
                    $( $field: self.$field.unwrap_or(base.$field), )*
                    $( $( $table: self.$table.unwrap_or_default().over(base.$table), )* )?
                }
            }
        }
    };
}

pub(super) use layered;

/// Whether a setting that resolved specs write only where it is on is off.
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// Where the settings that are not typed come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The paper's recipe with its faults mended.
    #[default]
    Corrected,
    /// The paper's recipe as its code runs. It starts classifiers from ImageNet's weights, which `weights`
    /// has to name, and its own split is `split = "diffecho"` with `test_from = "none"`.
    PaperCode,
}

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
    pub(super) fn resolved(self) -> Self {
        let every = if self.validate_every == 0 { self.steps.div_ceil(20) } else { self.validate_every };
        Self { validate_every: every, ..self }
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
    /// Fault: the period is counted in epochs but the schedule is stepped per batch, so that the rate
    /// swings up and down many times.
    CosinePeriodInEpochsSteppedPerBatch,
}

/// What a segmentation network is trained to lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentationLoss {
    /// Weighted cross-entropy (the paper's).
    CrossEntropy,
    /// The same plus one minus the soft Dice of the three structures over the batch: a small structure
    /// counts as much as a large one, so that no start of training leaves the atrium out.
    DiceCrossEntropy,
}

/// What the greatest translation is a number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TranslateUnit {
    /// Of the image size. Drawn translations are whole pixels, as by torchvision's `RandomAffine`.
    Fraction,
    /// Fault: pixels, drawn as they are; 0.1 is a tenth of a pixel.
    Pixels,
}

/// Which patients the reported figures are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportOn {
    Test,
    /// Fault: the patients that the checkpoint was chosen on.
    Val,
}

/// How the trained parameters of a classifier are kept to a budget: whole tensors are trained from the last
/// one backwards, the others are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// As the paper's code does it: until the budget is reached, so that the tensor that crosses it is trained
    /// too. Frozen batch norms go on normalising by the batch and moving their running statistics.
    Reference,
    /// Never above the budget (but the last layer is always trained). What is frozen is run as in
    /// evaluation: batch norms by their running statistics, nothing dropped below the first trained tensor.
    Exact,
}

layered! {
    /// Random changes of training images, and of their masks along with them. All draws are uniform.
    AugmentSpec => Augment {
        /// False: none.
        enabled: bool,
        /// ± degrees.
        rotate: f64,
        /// ±, in `translate_unit`.
        translate: f64,
        translate_unit: TranslateUnit,
        /// ±, around 1.
        scale: f64,
        /// ± degrees.
        shear: f64,
        /// ±, around 1.
        brightness: f64,
        /// ±, around 1.
        contrast: f64,
        /// Fault when true: images are sampled by nearest neighbour, as masks are.
        nearest_images: bool,
    }
}

layered! {
    /// Segmentation: MONAI's U-Net on (image, mask) pairs.
    SegmentationSpec => Segmentation {
        preset: Preset,
        model: SegmentationNetwork,
        /// Pixels; images are resized to a square of this side.
        image_size: usize,
        /// 0 where there is a `budget`.
        epochs: usize,
        /// `{ steps = N }` in place of `epochs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
        batch_size: usize,
        /// Adam's rate at the start.
        learning_rate: f64,
        /// The rate at the end of the schedule.
        final_learning_rate: f64,
        schedule: Schedule,
        /// Optimizer steps over which the rate rises from almost 0 to the schedule's; 0: none.
        warmup_steps: usize,
        loss: SegmentationLoss,
        /// Cross-entropy weights: background, endocardium, myocardium, atrium.
        class_weights: Vec<f64>,
        /// Epochs between validations (the last epoch is always validated).
        validate_every: usize,
        precision: Precision,
        /// U-Net channels from top to bottom; strides are 2.
        channels: Vec<i64>,
        shuffle: bool,
        pairing: Pairing,
        mask_decoding: MaskDecoding,
        /// Fault when true: the validation loss is summed on top of the epoch's training loss.
        val_loss_starts_from_train: bool,
        /// Fault when true: one image without a structure makes that structure's mean NaN, and no
        /// checkpoint is chosen at that epoch.
        nan_poisons_dice: bool,
        report_on: ReportOn,
    } tables {
        augment: AugmentSpec => Augment,
    }
}

layered! {
    /// Classification: torchvision's networks.
    ClassificationSpec => Classification {
        preset: Preset,
        label: Label,
        /// Each is trained and measured.
        models: Vec<Backbone>,
        /// A torchvision checkpoint as safetensors, or a folder that holds NAME.safetensors for each model;
        /// empty: from scratch.
        weights: PathBuf,
        /// How many parameters are trained, in tensors from the last one backwards; 0: all.
        trainable_parameters: usize,
        freeze: Freeze,
        image_size: usize,
        /// 0 where there is a `budget`.
        epochs: usize,
        /// `{ steps = N }` in place of `epochs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
        /// Greatest number of synthetic images of each class (the paper's: 800); 0: as many as `ratio` says.
        #[serde(skip_serializing_if = "is_zero")]
        synthetic_per_class: usize,
        batch_size: usize,
        /// SGD's rate.
        learning_rate: f64,
        final_learning_rate: f64,
        schedule: Schedule,
        /// Optimizer steps over which the rate rises from almost 0 to the schedule's; 0: none.
        warmup_steps: usize,
        momentum: f64,
        weight_decay: f64,
        validate_every: usize,
        precision: Precision,
        shuffle: bool,
        /// Normalise with ImageNet's mean and standard deviation (needed by pretrained weights);
        /// otherwise (x - 0.5) / 0.5.
        imagenet_normalise: bool,
        val_loss_starts_from_train: bool,
        report_on: ReportOn,
    } tables {
        augment: AugmentSpec => Augment,
    }
}

impl Augment {
    pub fn preset(preset: Preset) -> Self {
        let faulty = preset == Preset::PaperCode;
        Self {
            enabled: true,
            rotate: 10.0,
            translate: 0.1,
            translate_unit: if faulty { TranslateUnit::Pixels } else { TranslateUnit::Fraction },
            scale: 0.1,
            shear: 10.0,
            brightness: 0.3,
            contrast: 0.3,
            nearest_images: faulty,
        }
    }
}

impl Segmentation {
    /// Keys that training does not depend on, so that they are not in its stage's key.
    pub const NOT_TRAINING: [&str; 2] = ["preset", "report_on"];

    pub fn preset(preset: Preset) -> Self {
        let corrected = Self {
            preset,
            model: SegmentationNetwork::MonaiUnet,
            image_size: 256,
            epochs: 300,
            budget: None,
            batch_size: 4,
            learning_rate: 1e-3,
            final_learning_rate: 1e-4,
            schedule: Schedule::Cosine,
            warmup_steps: 0,
            loss: SegmentationLoss::CrossEntropy,
            class_weights: vec![0.05, 0.25, 0.35, 0.35],
            validate_every: 2,
            precision: Precision::F32,
            channels: vec![2, 4, 8, 16, 32, 64, 128, 256],
            shuffle: true,
            pairing: Pairing::Manifest,
            mask_decoding: MaskDecoding::ClassIndices,
            augment: Augment::preset(preset),
            val_loss_starts_from_train: false,
            nan_poisons_dice: false,
            report_on: ReportOn::Test,
        };
        match preset {
            Preset::Corrected => corrected,
            Preset::PaperCode => Self {
                schedule: Schedule::CosinePeriodInEpochsSteppedPerBatch,
                shuffle: false,
                pairing: Pairing::SortedNames,
                mask_decoding: MaskDecoding::GreyPerImage,
                val_loss_starts_from_train: true,
                nan_poisons_dice: true,
                report_on: ReportOn::Val,
                ..corrected
            },
        }
    }
}

impl Classification {
    /// Keys that training does not depend on, so that they are not in its stage's key: it has one of the models,
    /// and knows weights by their digest.
    pub const NOT_TRAINING: [&str; 4] = ["preset", "models", "weights", "report_on"];

    /// The file of this model's weights; None: from scratch.
    pub fn weights_of(&self, model: Backbone) -> Option<PathBuf> {
        let weights = &self.weights;
        let file =
            if weights.is_dir() { weights.join(format!("{model}.safetensors")) } else { weights.clone() };
        (!weights.as_os_str().is_empty()).then_some(file)
    }

    pub fn preset(preset: Preset) -> Self {
        let corrected = Self {
            preset,
            label: Label::Phase,
            models: vec![Backbone::Resnet18],
            weights: PathBuf::new(),
            trainable_parameters: 0,
            freeze: Freeze::Reference,
            image_size: 224,
            epochs: 30,
            budget: None,
            synthetic_per_class: 0,
            batch_size: 32,
            learning_rate: 1e-3,
            final_learning_rate: 1e-3,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            momentum: 0.9,
            weight_decay: 0.0,
            validate_every: 1,
            precision: Precision::F32,
            shuffle: true,
            augment: Augment::preset(preset),
            imagenet_normalise: true,
            val_loss_starts_from_train: false,
            report_on: ReportOn::Test,
        };
        match preset {
            Preset::Corrected => corrected,
            Preset::PaperCode => Self {
                trainable_parameters: 2_000_000,
                shuffle: false,
                imagenet_normalise: false,
                synthetic_per_class: 800,
                val_loss_starts_from_train: true,
                report_on: ReportOn::Val,
                ..corrected
            },
        }
    }
}
