//! What figures are drawn as.

use super::words;

words! {
    /// A file format of figures, by its file extension.
    FigureFormat {
        Svg = "svg",
        Pdf = "pdf",
        /// 300 dots per inch.
        Png = "png",
    }
}

impl FigureFormat {
    /// The name for a reader.
    pub fn label(self) -> &'static str {
        match self {
            Self::Svg => "SVG",
            Self::Pdf => "PDF",
            Self::Png => "PNG, 300 dpi",
        }
    }
}
