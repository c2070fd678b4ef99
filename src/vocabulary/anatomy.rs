//! Views, phases and structures of the heart.

use super::words;

words! {
    /// Apical view.
    View { TwoChamber = "2CH", FourChamber = "4CH" }
}

words! {
    /// Cardiac phase: end diastole or end systole.
    Phase { Ed = "ED", Es = "ES" }
}

/// Number of pairs of a view and a phase: the classes that a generator is told.
pub const VIEW_PHASES: usize = View::ALL.len() * Phase::ALL.len();

/// Number of classes in a mask: 0 background, 1 left-ventricle endocardium (the cavity), 2 myocardium, 3 left atrium.
pub const MASK_CLASSES: usize = 4;

words! {
    /// What is measured in a mask of class indices.
    Structure {
        /// Class 1, the cavity.
        Endo = "endo",
        /// Class 2, the ring.
        Myo = "myo",
        /// Classes 1 and 2: what CAMUS calls the epicardium.
        Epi = "epi",
        /// Class 3, the left atrium.
        La = "la",
    }
}

impl Structure {
    /// The structures that are one class each: a mean over structures is over these, so that no pixel counts
    /// twice.
    pub const CLASSES: [Self; 3] = [Self::Endo, Self::Myo, Self::La];

    /// The word in results for the mean over [`Self::CLASSES`].
    pub const MEAN: &'static str = "mean";

    /// The words of the column `structure` of segmentation results, in the order in which a reader sees them.
    pub const COLUMNS: [&'static str; 5] =
        [Self::Endo.as_str(), Self::Myo.as_str(), Self::Epi.as_str(), Self::La.as_str(), Self::MEAN];

    /// The name for a reader of a word of the column `structure`; another word is its own name.
    pub fn label_of(word: &str) -> &str {
        match word.parse() {
            Ok(Self::Endo) => "LV endocardium",
            Ok(Self::Myo) => "LV myocardium",
            Ok(Self::Epi) => "LV epicardium",
            Ok(Self::La) => "Left atrium",
            Err(_) if word == Self::MEAN => "Mean",
            Err(_) => word,
        }
    }

    /// Whether a word names one of [`Self::CLASSES`].
    pub fn is_class(word: &str) -> bool {
        Self::CLASSES.iter().any(|structure| structure.as_str() == word)
    }

    /// Whether a pixel of this class belongs to the structure.
    pub fn contains(self, class: u8) -> bool {
        match self {
            Self::Endo => class == 1,
            Self::Myo => class == 2,
            Self::Epi => class == 1 || class == 2,
            Self::La => class == 3,
        }
    }

    /// The structure's own mask, pixel by pixel.
    pub fn mask(self, classes: &[u8]) -> Vec<bool> {
        classes.iter().map(|&class| self.contains(class)).collect()
    }
}
