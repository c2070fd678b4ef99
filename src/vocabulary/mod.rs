//! The words that several modules share, each with one spelling.
//!
//! A word is what a spec, the command line and the tables call a thing. Every enum here has `ALL`, `as_str`,
//! `Display`, `FromStr` and serde with the same spelling, so that no module keeps a list of names of its own.
//! This module imports serde and nothing of ours.

mod anatomy;
mod data;
mod features;
mod figures;
mod generation;
mod metric;
mod networks;
mod task;

pub use anatomy::{MASK_CLASSES, Phase, Structure, VIEW_PHASES, View};
pub use data::{Label, MaskDecoding, Pairing, Quality, Sex, Source, Split};
pub use features::{Convention, Extractor, GeneratorMeasure};
pub use figures::FigureFormat;
pub use generation::{
    Betas, GeneratorCheckpoint, KeptPart, Mode, NoiseLevels, Objective, Precision, Prediction, PromptField,
    Sampler, TimeSampling, TimeScaleShift,
};
pub use metric::{Direction, Level, Metric, Statistic, Undefined};
pub use networks::{Backbone, CHECKPOINT_ENDINGS, SegmentationNetwork};
pub use task::Task;

/// Declares an enum whose variants are words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $( $(#[$doc])* #[serde(rename = $word)] $variant, )*
        }

        impl $name {
            /// In the order in which they are listed to a reader.
            pub const ALL: [Self; { [$( $word ),*].len() }] = [$( Self::$variant ),*];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        /// For comparing with a column of results.
        impl PartialEq<$name> for String {
            fn eq(&self, other: &$name) -> bool {
                self == other.as_str()
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(|| {
                    format!("expected one of {}, found {text:?}", [$( $word ),*].join(", "))
                })
            }
        }
    };
}
use words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_serde_spells_them_alike() {
        for mode in Mode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("{:?}", mode.as_str()));
        }
        assert_eq!("3CH".parse::<View>().unwrap_err(), "expected one of 2CH, 4CH, found \"3CH\"");
        assert_eq!(format!("[{:>4}]", Phase::Ed), "[  ED]");
    }
}
