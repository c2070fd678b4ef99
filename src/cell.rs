//! Which result a number belongs to: one type from the plan to the report to `synecho explain`.
//!
//! A cell is written as `TASK/ARM/MODEL/SEED`, or `generation/GENERATOR`. An arm's name may hold slashes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::vocabulary::Task;

/// Some of the training patients: `fraction` of them, drawn by `seed`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fraction {
    pub fraction: f64,
    pub seed: u64,
}

/// What is left of a label after a generator's name: `, 50% of the patients, seed 0`.
impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", {}% of the patients, seed {}", (self.fraction * 1e4).round() / 100.0, self.seed)
    }
}

/// A network that is trained for a task and measured on held-out patients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkCell {
    pub task: Task,
    /// By its name in the spec.
    pub arm: String,
    /// By its word in the spec.
    pub model: String,
    pub seed: u64,
}

/// A generator of synthetic images.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorCell {
    /// By its name in the spec.
    pub name: String,
    /// The patients that it was trained on; None: all training patients.
    pub patients: Option<Fraction>,
}

impl GeneratorCell {
    /// The name that a reader sees, which tells generators of different patients apart.
    pub fn label(&self) -> String {
        let patients = self.patients.map(|patients| patients.to_string()).unwrap_or_default();
        format!("{}{patients}", self.name)
    }
}

/// The identity of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Network(NetworkCell),
    Generator(GeneratorCell),
}

impl Cell {
    pub fn task(&self) -> Task {
        match self {
            Self::Network(network) => network.task,
            Self::Generator(_) => Task::Generation,
        }
    }

    /// What the column `arm` of results holds.
    pub fn arm(&self) -> String {
        match self {
            Self::Network(network) => network.arm.clone(),
            Self::Generator(generator) => generator.label(),
        }
    }

    /// What the column `model` holds, where the cell decides it.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Network(network) => Some(&network.model),
            Self::Generator(_) => None,
        }
    }

    pub fn seed(&self) -> Option<u64> {
        match self {
            Self::Network(network) => Some(network.seed),
            Self::Generator(_) => None,
        }
    }

    /// `TASK/ARM/MODEL`: what the cells of several seeds have in common.
    pub fn without_seed(&self) -> String {
        match self {
            Self::Network(network) => format!("{}/{}/{}", network.task, network.arm, network.model),
            Self::Generator(_) => self.to_string(),
        }
    }

    /// `TASK/ARM`.
    pub fn of_arm(&self) -> String {
        format!("{}/{}", self.task(), self.arm())
    }

    /// Whether `asked` is its name, or the beginning of it up to a slash.
    pub fn is_in(&self, asked: &str) -> bool {
        let name = self.to_string();
        name == asked || name.strip_prefix(asked).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(_) => write!(f, "{}/{}", self.without_seed(), self.seed().unwrap_or_default()),
            Self::Generator(generator) => write!(f, "{}/{}", Task::Generation, generator.label()),
        }
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected TASK/ARM/MODEL/SEED or generation/GENERATOR, found {text:?}");
        let (task, rest) = text.split_once('/').ok_or_else(expected)?;
        let task: Task = task.parse()?;
        if task == Task::Generation {
            let patients = rest.rsplit_once(", seed ").and_then(|(before, seed)| {
                let (name, percent) = before.rsplit_once(", ")?;
                let percent: f64 = percent.strip_suffix("% of the patients")?.parse().ok()?;
                Some((name, Fraction { fraction: percent / 100.0, seed: seed.parse().ok()? }))
            });
            let (name, patients) = patients.map_or((rest, None), |(name, of)| (name, Some(of)));
            return Ok(Self::Generator(GeneratorCell { name: name.to_owned(), patients }));
        }
        // An arm may hold slashes, so the others are taken from the end.
        let mut ends = rest.rsplitn(3, '/');
        let (Some(seed), Some(model), Some(arm)) = (ends.next(), ends.next(), ends.next()) else {
            return Err(expected());
        };
        Ok(Self::Network(NetworkCell {
            task,
            arm: arm.to_owned(),
            model: model.to_owned(),
            seed: seed.parse().map_err(|_| expected())?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_back_as_it_was_written() {
        let network = |arm: &str| {
            let (task, arm, model) = (Task::Segmentation, arm.to_owned(), "monai-unet".to_owned());
            Cell::Network(NetworkCell { task, arm, model, seed: 3 })
        };
        let generator = |patients| Cell::Generator(GeneratorCell { name: "a, b/c".into(), patients });
        let half = Fraction { fraction: 0.5, seed: 7 };
        for cell in [network("real"), network("1/2 real, 50% x"), generator(None), generator(Some(half))] {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
        assert_eq!(generator(Some(half)).to_string(), "generation/a, b/c, 50% of the patients, seed 7");
        for wrong in
            ["segmentation", "segmentation/real/unet", "segmentation/real/unet/x", "dice/real/unet/0"]
        {
            assert!(wrong.parse::<Cell>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cell_belongs_to_what_its_name_begins_with() {
        let cell: Cell = "segmentation/real + 50%/unet/0".parse().unwrap();
        for (asked, is_in) in [("segmentation", true), ("segmentation/real", false), (&*cell.of_arm(), true)]
        {
            assert_eq!(cell.is_in(asked), is_in, "{asked}");
        }
        assert_eq!(cell.without_seed(), "segmentation/real + 50%/unet");
    }
}
