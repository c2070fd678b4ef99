//! Where the settings of a task that are not typed come from.

use serde::{Deserialize, Serialize};

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
    /// Of segmentation: what others reach on CAMUS, with nnU-Net's plain network.
    Strong,
}
