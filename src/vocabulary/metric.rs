//! What is measured, and how to read it.

use std::fmt;

use super::{Structure, Task};

/// What one value of a metric is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// One image (and structure). A report averages them: over images, with an interval over patients.
    Image,
    /// One image and class. Nothing is averaged over these.
    ImageClass,
    /// One patient, from several images. A report averages them over patients.
    Patient,
    /// A set of images.
    Set,
    /// A point of a training curve.
    Curve,
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Higher,
    Lower,
    /// The one that is closer to what real images have.
    Reference,
    /// A count or a setting: neither.
    Neither,
}

impl Direction {
    /// `higher`, `lower`; empty where there is no such direction.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::Reference | Self::Neither => "",
        }
    }
}

/// When a value is NaN. NaN is left out of every mean, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undefined {
    /// Where there are too few images.
    TooFew,
    /// Where the truth lacks the structure. Where only the prediction lacks it, the value is the worst one.
    TruthLacksIt,
    /// Where only one of truth and prediction has the structure, which is a failure. Where neither has it there is no
    /// value.
    EitherLacksIt,
    /// Where a patient lacks an image, or one of the masks the ventricle or the atrium.
    NoVolume,
}

/// A derived figure of a metric. It is a row of its own, named by the metric with this suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// The value itself, or the mean.
    Mean,
    /// Sample standard deviation over images.
    Sd,
    /// Sample standard deviation over seeds.
    SeedSd,
    /// Ends of the 95 % interval.
    Ci95Low,
    Ci95High,
    /// Images in which it is undefined.
    Failures,
    /// Over subsets.
    StandardError,
    /// Images in each subset.
    SubsetSize,
    /// At images without end.
    Extrapolated,
}

impl Statistic {
    pub const ALL: [Self; 9] = [
        Self::Mean,
        Self::Sd,
        Self::SeedSd,
        Self::Ci95Low,
        Self::Ci95High,
        Self::Failures,
        Self::StandardError,
        Self::SubsetSize,
        Self::Extrapolated,
    ];

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Mean => "",
            Self::Sd => "_sd",
            Self::SeedSd => "_seed_sd",
            Self::Ci95Low => "_ci95_low",
            Self::Ci95High => "_ci95_high",
            Self::Failures => "_failures",
            Self::StandardError => "_standard_error",
            Self::SubsetSize => "_subset_size",
            Self::Extrapolated => "_extrapolated",
        }
    }
}

/// Declares the metrics: what each is called, and how it is read.
macro_rules! metrics {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $word:literal {
            label: $label:literal,
            task: $task:ident,
            level: $level:ident,
            direction: $direction:ident,
            decimals: $decimals:literal,
            undefined: $undefined:ident,
            definition: $definition:literal $(,)?
        }
    )*) => {
        /// A figure of merit, by its word in the column `metric`. Words are unique within a task.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Metric { $( $(#[$doc])* $variant, )* }

        impl Metric {
            /// In the order in which a reader sees them.
            pub const ALL: [Self; { [$( $word ),*].len() }] = [$( Self::$variant ),*];

            /// The word in the column `metric`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// The name for a reader.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )* }
            }

            pub const fn task(self) -> Task {
                match self { $( Self::$variant => Task::$task, )* }
            }

            pub const fn level(self) -> Level {
                match self { $( Self::$variant => Level::$level, )* }
            }

            pub const fn direction(self) -> Direction {
                match self { $( Self::$variant => Direction::$direction, )* }
            }

            /// How many decimals a table shows.
            pub const fn decimals(self) -> usize {
                match self { $( Self::$variant => $decimals, )* }
            }

            pub const fn undefined(self) -> Undefined {
                match self { $( Self::$variant => Undefined::$undefined, )* }
            }

            /// What it is, in a sentence; empty where the table that shows it explains it.
            pub const fn definition(self) -> &'static str {
                match self { $( Self::$variant => $definition, )* }
            }
        }
    };
}

metrics! {
    Dice = "dice" {
        label: "Dice", task: Segmentation, level: Image, direction: Higher, decimals: 3, undefined: TruthLacksIt,
        definition: "Dice: twice the area that prediction and truth share, divided by the sum of their areas; per image and structure.",
    }
    Hd95 = "hd95" {
        label: "HD95", task: Segmentation, level: Image, direction: Lower, decimals: 2, undefined: EitherLacksIt,
        definition: "HD95 (Hausdorff distance, 95th percentile): take the distance from every pixel of one outline to the nearest pixel of the other, and the 95th percentile of these; the larger of both directions counts; per image and structure.",
    }
    Hd = "hd" {
        label: "HD", task: Segmentation, level: Image, direction: Lower, decimals: 2, undefined: EitherLacksIt,
        definition: "HD (Hausdorff distance): the largest distance from a pixel of one outline to the nearest pixel of the other; per image and structure.",
    }
    Assd = "assd" {
        label: "ASSD", task: Segmentation, level: Image, direction: Lower, decimals: 2, undefined: EitherLacksIt,
        definition: "ASSD (average symmetric surface distance): the mean distance from the pixels of each outline to the nearest pixel of the other; per image and structure.",
    }
    Iou = "iou" {
        label: "IoU", task: Segmentation, level: Image, direction: Higher, decimals: 3, undefined: TruthLacksIt,
        definition: "IoU (intersection over union): the area that prediction and truth share, divided by the area that either covers; per image and structure. It ranks two predictions of a structure as Dice does.",
    }
    /// By the predicted masks.
    Ef = "ef" {
        label: "EF", task: Segmentation, level: Patient, direction: Neither, decimals: 1, undefined: NoVolume,
        definition: "EF (ejection fraction of the left ventricle): 100 (EDV − ESV) / EDV, from the volumes at end diastole and end systole by Simpson's biplane method: 20 discs across the long axis of both apical views, one disc height for all four masks of a patient.",
    }
    EfReference = "ef_reference" {
        label: "EF of reference masks", task: Segmentation, level: Patient, direction: Neither, decimals: 1,
        undefined: NoVolume, definition: "",
    }
    /// The column `ef` of the manifest.
    EfRecorded = "ef_recorded" {
        label: "Recorded EF", task: Segmentation, level: Patient, direction: Neither, decimals: 1,
        undefined: NoVolume, definition: "",
    }
    /// Between the EF of the predicted and of the reference masks; its mean is the mean absolute error.
    EfError = "ef_error" {
        label: "EF error", task: Segmentation, level: Patient, direction: Lower, decimals: 2, undefined: NoVolume,
        definition: "EF error: the absolute difference between the EF of the predicted and of the reference masks, in percentage points; per patient.",
    }
    Edv = "edv" {
        label: "EDV", task: Segmentation, level: Patient, direction: Neither, decimals: 1, undefined: NoVolume,
        definition: "",
    }
    Esv = "esv" {
        label: "ESV", task: Segmentation, level: Patient, direction: Neither, decimals: 1, undefined: NoVolume,
        definition: "",
    }
    EdvReference = "edv_reference" {
        label: "EDV of reference masks", task: Segmentation, level: Patient, direction: Neither, decimals: 1,
        undefined: NoVolume, definition: "",
    }
    EsvReference = "esv_reference" {
        label: "ESV of reference masks", task: Segmentation, level: Patient, direction: Neither, decimals: 1,
        undefined: NoVolume, definition: "",
    }
    /// 1 where the predicted class is the true one, else 0. Its mean is the accuracy.
    Correct = "correct" {
        label: "Accuracy", task: Classification, level: Image, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Probability = "probability" {
        label: "Probability", task: Classification, level: ImageClass, direction: Neither, decimals: 3,
        undefined: TooFew, definition: "",
    }
    Accuracy = "accuracy" {
        label: "Accuracy", task: Classification, level: Set, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Precision = "precision" {
        label: "Precision", task: Classification, level: Set, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Recall = "recall" {
        label: "Recall", task: Classification, level: Set, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    F1 = "f1" {
        label: "F1", task: Classification, level: Set, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Auc = "auc" {
        label: "AUC", task: Classification, level: Set, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    /// Images of one class that were taken for another (column `structure`: `ED as ES`).
    Confusion = "confusion" {
        label: "Confusion", task: Classification, level: Set, direction: Neither, decimals: 0, undefined: TooFew,
        definition: "",
    }
    /// Of synthetic images: the predicted class is of the right view.
    ViewAccuracy = "view_accuracy" {
        label: "Right view", task: Generation, level: Set, direction: Higher, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Loss = "loss" {
        label: "Loss", task: Segmentation, level: Curve, direction: Lower, decimals: 4, undefined: TooFew,
        definition: "",
    }
    LearningRate = "learning_rate" {
        label: "Learning rate", task: Segmentation, level: Curve, direction: Neither, decimals: 6, undefined: TooFew,
        definition: "",
    }
    /// The Fréchet distance in Inception's features.
    Fid = "fid" {
        label: "FID", task: Generation, level: Set, direction: Lower, decimals: 3, undefined: TooFew, definition: "",
    }
    /// The Fréchet distance in the features of another network.
    Frechet = "frechet" {
        label: "Fréchet distance", task: Generation, level: Set, direction: Lower, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Kid = "kid" {
        label: "KID × 1000", task: Generation, level: Set, direction: Lower, decimals: 3, undefined: TooFew,
        definition: "",
    }
    ManifoldPrecision = "precision" {
        label: "Precision", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "",
    }
    ManifoldRecall = "recall" {
        label: "Recall", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Density = "density" {
        label: "Density", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Coverage = "coverage" {
        label: "Coverage", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "",
    }
    Mind = "mind" {
        label: "MIND", task: Generation, level: Set, direction: Lower, decimals: 3, undefined: TooFew,
        definition: "MIND (Monge inception distance): the mean squared 2-Wasserstein distance along 1000 random directions, times three times the width of the features. 0 means equal; lower is better. Few images bias it upwards: compare it only at equal n.",
    }
    Authenticity = "authenticity" {
        label: "Authentic in %", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "Authentic: the share of images that are farther from their nearest real image than that image is from its own nearest real image. Copies lower it, and images far from all real ones raise it: compare it with the rows for the scale.",
    }
    Vendi = "vendi" {
        label: "Vendi score", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "Vendi score: how many different images the set seems to hold, from 1 to n. It does not depend on the real images. It grows with n: compare it only at equal n, with the rows for the scale.",
    }
    /// How many real images a set was compared with.
    RealCount = "n_real" {
        label: "n real", task: Generation, level: Set, direction: Neither, decimals: 0, undefined: TooFew,
        definition: "",
    }
    /// Power of the synthetic images over that of the real ones in an octave (column `structure`).
    Texture = "texture" {
        label: "Texture", task: Generation, level: Set, direction: Reference, decimals: 3, undefined: TooFew,
        definition: "",
    }
    MemorisationCloser = "memorisation_closer" {
        label: "Nearer than held-out", task: Generation, level: Set, direction: Lower, decimals: 3, undefined: TooFew,
        definition: "",
    }
    MemorisationP = "memorisation_p" {
        label: "p", task: Generation, level: Set, direction: Neither, decimals: 3, undefined: TooFew, definition: "",
    }
    MemorisationShareNear = "memorisation_share_near" {
        label: "Share near", task: Generation, level: Set, direction: Lower, decimals: 3, undefined: TooFew,
        definition: "",
    }
    MemorisationCopies = "memorisation_copies" {
        label: "Copies", task: Generation, level: Set, direction: Lower, decimals: 0, undefined: TooFew,
        definition: "",
    }
    MemorisationMedian = "memorisation_median" {
        label: "Median distance", task: Generation, level: Set, direction: Neither, decimals: 3, undefined: TooFew,
        definition: "",
    }
    MemorisationMedianHeldOut = "memorisation_median_held_out" {
        label: "Median of held-out", task: Generation, level: Set, direction: Neither, decimals: 3, undefined: TooFew,
        definition: "",
    }
    MemorisationHeldOutCount = "memorisation_n_held_out" {
        label: "n held out", task: Generation, level: Set, direction: Neither, decimals: 0, undefined: TooFew,
        definition: "",
    }
}

impl Metric {
    /// The word of a derived figure: `hd95_failures`.
    pub fn with(self, statistic: Statistic) -> String {
        format!("{}{}", self.as_str(), statistic.suffix())
    }

    /// A metric and its derived figure, by the word in the column `metric` of a task's rows. A generator is also measured
    /// by what the networks of the tasks see in its images, so that its rows hold the tasks' metrics too.
    pub fn parse(task: Task, word: &str) -> Option<(Self, Statistic)> {
        let named = |word: &str| {
            let fits = |metric: &Self| metric.as_str() == word;
            let own = Self::ALL.into_iter().filter(|metric| metric.task() == task);
            own.chain(Self::ALL).find(fits)
        };
        let mut suffixes = Statistic::ALL.into_iter().skip(1);
        named(word).map(|metric| (metric, Statistic::Mean)).or_else(|| {
            suffixes.find_map(|statistic| Some((named(word.strip_suffix(statistic.suffix())?)?, statistic)))
        })
    }

    /// Whether a value is one of an image or of a patient, to be averaged over these.
    pub fn is_averaged(self) -> bool {
        matches!(self.level(), Level::Image | Level::Patient)
    }

    /// Whether a value is one of a patient, from several images.
    pub fn is_of_patients(self) -> bool {
        self.level() == Level::Patient
    }

    /// The metrics of a task that are averaged over images, in the order in which a reader sees them.
    pub fn of_images(task: Task) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |metric| metric.task() == task && metric.level() == Level::Image)
    }

    /// The scores that arms are compared by.
    pub fn compared() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|metric| metric.is_averaged() && metric.direction() != Direction::Neither)
    }

    /// The word of a compared score in a spec.
    pub fn spec_word(self) -> &'static str {
        if self == Self::Correct { Self::Accuracy.as_str() } else { self.as_str() }
    }

    /// The unit of a metric that always has the same one. Distances are in mm or in pixels.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Ef | Self::EfReference | Self::EfRecorded => "%",
            Self::EfError => "points",
            Self::Edv | Self::Esv | Self::EdvReference | Self::EsvReference => "ml",
            _ => "",
        }
    }

    /// What a value is multiplied by before it is shown.
    pub fn scale(self) -> f64 {
        if self == Self::Kid { 1e3 } else { 1.0 }
    }

    pub fn higher_is_better(self) -> bool {
        self.direction() == Direction::Higher
    }

    /// Whether an undefined value is a failure of the prediction, to be counted.
    pub fn counts_failures(self) -> bool {
        self.undefined() == Undefined::EitherLacksIt
    }

    /// Whether it is a distance in millimetres or pixels.
    pub fn is_distance(self) -> bool {
        self.counts_failures()
    }

    /// Whether it stands in the foreground of a report: with a figure, and not folded away.
    pub fn is_main(self) -> bool {
        matches!(self, Self::Dice | Self::Hd95 | Self::Correct | Self::EfError)
    }
}

impl Task {
    /// The validation score that checkpoints are chosen by, as (metric, column `structure`). Higher is better. None for
    /// generators, whose last weights are taken.
    pub fn selection(self) -> Option<(Metric, &'static str)> {
        match self {
            Self::Segmentation => Some((Metric::Dice, Structure::MEAN)),
            Self::Classification => Some((Metric::Accuracy, "")),
            Self::Generation => None,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// For comparing with the column `metric`: the plain value, not a derived figure.
impl PartialEq<Metric> for String {
    fn eq(&self, other: &Metric) -> bool {
        self == other.as_str()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_unique_within_a_task_and_read_back_with_their_statistic() {
        let mut seen = HashSet::new();
        for metric in Metric::ALL {
            assert!(seen.insert((metric.task(), metric.as_str())), "{metric} twice");
            for statistic in Statistic::ALL {
                assert_eq!(
                    Metric::parse(metric.task(), &metric.with(statistic)),
                    Some((metric, statistic)),
                    "{metric}{}",
                    statistic.suffix()
                );
            }
        }
        assert_eq!(Metric::parse(Task::Generation, "precision").unwrap().0, Metric::ManifoldPrecision);
        assert_eq!(Metric::parse(Task::Generation, "dice_sd"), Some((Metric::Dice, Statistic::Sd)));
        assert_eq!(Metric::parse(Task::Segmentation, "dise"), None);
    }

    #[test]
    fn every_metric_of_an_image_and_structure_says_what_it_is() {
        for metric in Metric::of_images(Task::Segmentation) {
            assert!(metric.definition().starts_with(metric.label()), "{metric}");
            assert_ne!(metric.direction(), Direction::Neither, "{metric}");
        }
    }
}
