//! Where images come from, which part of an experiment they belong to, and what is known of them.

use super::words;

words! {
    /// How a data set lies on the disk.
    Source {
        /// CAMUS as distributed (NIfTI, or the older mhd/raw), or a manifest folder made from it.
        Camus = "camus",
        /// The PNG folders that the DiffEcho repository writes.
        Diffecho = "diffecho",
        /// The Kaggle copy: one HDF5 file. Needs the cargo feature `hdf5`.
        KaggleH5 = "kaggle-h5",
        /// A folder with manifest.csv.
        Folder = "folder",
        /// Built in: drawn, not measured.
        Phantom = "phantom",
    }
}

impl Source {
    /// What lies on the disk, in words.
    pub fn layout(self) -> &'static str {
        match self {
            Self::Camus => "CAMUS: database_nifti (or the older mhd/raw)",
            Self::Diffecho => "The PNG folders of the DiffEcho repository",
            Self::KaggleH5 => "The Kaggle copy: one HDF5 file",
            Self::Folder => "A folder with manifest.csv",
            Self::Phantom => "The phantom, in the layout of CAMUS",
        }
    }

    /// What the images are, in words for a report.
    pub fn description(self) -> String {
        let camus = |what: &str| {
            format!(
                "{what}, echocardiograms in the apical two- and four-chamber views (2CH, 4CH) at end diastole and end systole (ED, ES)"
            )
        };
        match self {
            Self::Camus => camus("CAMUS"),
            Self::Diffecho => camus("DiffEcho's PNG folders of CAMUS"),
            Self::KaggleH5 => camus("the Kaggle copy of CAMUS"),
            Self::Folder => "a manifest folder".to_owned(),
            Self::Phantom => "the built-in phantom, which is drawn, not measured".to_owned(),
        }
    }

    /// A short name for a reader.
    pub fn name(self) -> &'static str {
        match self {
            Self::Camus | Self::Diffecho | Self::KaggleH5 => "CAMUS",
            Self::Folder => "own data",
            Self::Phantom => "phantom",
        }
    }

    /// What to cite for the images; empty where this program does not know it.
    pub fn citation(self) -> &'static str {
        match self {
            Self::Camus | Self::Diffecho | Self::KaggleH5 => {
                "S. Leclerc, E. Smistad, J. Pedrosa, A. Østvik, et al. “Deep Learning for Segmentation using an Open Large-Scale Dataset in 2D Echocardiography.” IEEE Transactions on Medical Imaging 38(9):2198–2210, 2019. doi:10.1109/TMI.2019.2900516"
            }
            Self::Folder | Self::Phantom => "",
        }
    }

    /// The licence of the images, where it does not let a report show them; empty otherwise.
    pub fn licence(self) -> &'static str {
        match self {
            Self::Camus | Self::Diffecho | Self::KaggleH5 => "CC BY-NC-SA 4.0",
            Self::Folder | Self::Phantom => "",
        }
    }

    /// Whether its folder may be a manifest folder already.
    pub fn may_be_manifest(self) -> bool {
        matches!(self, Self::Folder | Self::Camus)
    }
}

words! {
    /// Which part of an experiment a patient belongs to.
    Split { Train = "train", Val = "val", Test = "test" }
}

words! {
    /// CAMUS's grading of an acquisition.
    Quality { Good = "Good", Medium = "Medium", Poor = "Poor" }
}

words! {
    Sex { Female = "F", Male = "M" }
}

words! {
    /// What a classifier tells apart.
    Label {
        /// ED, ES (the paper's).
        Phase = "phase",
        /// 2CH, 4CH.
        View = "view",
        /// 2CH ED, 2CH ES, 4CH ED, 4CH ES.
        ViewPhase = "view-phase",
    }
}

impl Label {
    /// Class names in the order of their indices.
    pub fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Phase => &["ED", "ES"],
            Self::View => &["2CH", "4CH"],
            Self::ViewPhase => &["2CH ED", "2CH ES", "4CH ED", "4CH ES"],
        }
    }
}

words! {
    /// How masks find their images.
    Pairing {
        Manifest = "manifest",
        /// Fault: the i-th mask by name belongs to the i-th image by name. Where images and masks have equal
        /// names, as all prepared real data, this changes nothing.
        SortedNames = "sorted-names",
    }
}

words! {
    /// How training masks come to their class indices.
    MaskDecoding {
        ClassIndices = "class-indices",
        /// Fault: masks pass through 8-bit grey scaled by each mask's own maximum and are read as grey / 85,
        /// truncated: without an atrium the myocardium becomes atrium.
        GreyPerImage = "grey-per-image",
    }
}
