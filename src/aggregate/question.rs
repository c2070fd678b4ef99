//! The question of an experiment.

use super::ArmInfo;
use crate::vocabulary::Task;

/// What an experiment's arms can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Do synthetic images help?
    Synthetic,
    /// Do more copies of real images help?
    Copies,
    /// What do real images only reach?
    RealOnly,
    /// What do these networks reach? It is not known what they were trained on.
    Scores,
    /// Are generated images close to real ones?
    Generators,
    /// There are no results.
    Nothing,
}

impl Question {
    /// `tasks`: those that networks were trained for.
    pub fn of(arms: &[ArmInfo], tasks: &[Task], generators: usize) -> Self {
        if tasks.is_empty() && generators == 0 {
            Self::Nothing
        } else if !tasks.is_empty() && arms.iter().any(|arm| arm.synthetic.is_some()) {
            Self::Synthetic
        } else if generators > 0 {
            // Networks that were trained on real images only judge the generators.
            Self::Generators
        } else if arms.iter().any(|arm| arm.control) {
            Self::Copies
        } else if arms.is_empty() {
            Self::Scores
        } else {
            Self::RealOnly
        }
    }

    pub fn words(self, tasks: &[Task]) -> String {
        let tasks: Vec<String> = tasks.iter().map(|task| task.title().to_lowercase()).collect();
        let tasks = tasks.join(" and ");
        match self {
            Self::Synthetic => format!("Do synthetic images help {tasks}?"),
            Self::Copies => format!("Do copies of real images help {tasks}?"),
            Self::RealOnly => format!("What do real images only reach in {tasks}?"),
            Self::Scores => format!("What do these networks reach in {tasks}?"),
            Self::Generators => "Are the generated images close to real ones?".to_owned(),
            Self::Nothing => "No results yet".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake;

    #[test]
    fn the_question_follows_from_what_was_trained() {
        let arms = fake::input(&fake::FakeShape { arms: 4, seeds: 1, epochs: 1, patients: 1 }).meta.arms;
        let tasks = Task::OF_ARMS;
        let words = |arms: &[ArmInfo], tasks: &[Task], n| Question::of(arms, tasks, n).words(tasks);
        assert_eq!(words(&arms, &tasks, 1), "Do synthetic images help segmentation and classification?");
        let real = [arms[0].clone(), arms[3].clone()];
        assert_eq!(words(&real, &tasks[..1], 0), "Do copies of real images help segmentation?");
        assert_eq!(words(&real[..1], &tasks[..1], 0), "What do real images only reach in segmentation?");
        assert_eq!(words(&[], &tasks[..1], 0), "What do these networks reach in segmentation?");
        assert_eq!(words(&[], &[], 2), "Are the generated images close to real ones?");
        assert_eq!(Question::of(&real[..1], &tasks, 2), Question::Generators);
        assert_eq!(Question::of(&arms, &[], 0), Question::Nothing);
    }
}
