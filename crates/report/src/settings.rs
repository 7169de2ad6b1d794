//! Settings of runs beside one another.

use std::collections::BTreeSet;

use contaccum_training::Role;

use crate::run::RunFolder;

/// One setting: its key and its value in each run, `None` where it is not set.
pub struct Setting {
    /// The key, as in a recipe.
    pub key: String,
    /// In the order of the runs.
    pub values: Vec<Option<String>>,
}

impl Setting {
    /// Whether two runs have different values.
    pub fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0] != pair[1])
    }
}

/// All settings of the runs, by key, but for the folder they are stored in.
pub fn settings(runs: &[RunFolder]) -> Vec<Setting> {
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    let setting = |key: &String| Setting {
        key: key.clone(),
        values: runs.iter().map(|run| run.setting(key)).collect(),
    };
    // Where a run is stored says nothing about it: every run has a folder of its own.
    let told = |key: &&String| {
        contaccum_training::Setting::of(key).is_none_or(|setting| setting.facts.role != Role::Place)
    };
    keys.into_iter().filter(told).map(setting).collect()
}
