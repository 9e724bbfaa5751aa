//! Which step waits for which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Step;
use crate::Invalid;

/// The steps of a job, by their places in the document, with what each needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    needs: Vec<Vec<usize>>,
    ancestors: Vec<BTreeSet<usize>>,
}

impl Graph {
    /// Finds what each step needs: what it says, or the one above it.
    ///
    /// # Errors
    /// A name that is not there, a step that needs itself, and a circle, with the path of the step.
    pub fn of(steps: &[Step]) -> Result<Self, Invalid> {
        let places: BTreeMap<&str, usize> =
            steps.iter().enumerate().map(|(place, step)| (step.name.as_str(), place)).collect();
        let mut needs = Vec::with_capacity(steps.len());
        for (place, step) in steps.iter().enumerate() {
            let mut own = BTreeSet::new();
            match &step.needs {
                None => own.extend(place.checked_sub(1)),
                Some(names) => {
                    for (index, name) in names.iter().enumerate() {
                        let wrong = |why: String| Invalid::new(format!("steps[{place}].needs[{index}]"), why);
                        let Some(needed) = places.get(name.as_str()) else {
                            return Err(wrong(format!("is '{name}', and the job has no step of that name")));
                        };
                        if *needed == place {
                            return Err(wrong("is the step itself".to_owned()));
                        }
                        own.insert(*needed);
                    }
                }
            }
            needs.push(own.into_iter().collect::<Vec<_>>());
        }
        let order = in_order(&needs).map_err(|circle| {
            let names: Vec<&str> = circle.iter().map(|place| steps[*place].name.as_str()).collect();
            let first = circle.first().copied().unwrap_or_default();
            Invalid::new(
                format!("steps[{first}].needs"),
                format!("makes a circle: {}", names.join(" needs ")),
            )
        })?;
        let mut ancestors = vec![BTreeSet::new(); steps.len()];
        for place in order {
            let mut all: BTreeSet<usize> = needs[place].iter().copied().collect();
            for needed in &needs[place] {
                all.extend(ancestors[*needed].iter().copied());
            }
            ancestors[place] = all;
        }
        Ok(Self { needs, ancestors })
    }

    /// What the step waits for.
    pub fn needs(&self, step: usize) -> &[usize] {
        &self.needs[step]
    }

    /// All that has to end before it, near and far.
    pub fn ancestors(&self, step: usize) -> &BTreeSet<usize> {
        &self.ancestors[step]
    }
}

/// An order in which each stands behind all that it needs (Kahn's algorithm), or a circle, with its first again at its end.
fn in_order(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut left: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut needed_by = vec![Vec::new(); needs.len()];
    for (place, own) in needs.iter().enumerate() {
        for needed in own {
            needed_by[*needed].push(place);
        }
    }
    let mut ready: VecDeque<usize> = (0..needs.len()).filter(|place| left[*place] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(place) = ready.pop_front() {
        order.push(place);
        for next in &needed_by[place] {
            left[*next] -= 1;
            if left[*next] == 0 {
                ready.push_back(*next);
            }
        }
    }
    if order.len() == needs.len() {
        return Ok(order);
    }
    // Whoever is left needs somebody who is left: going from need to need comes back to where it was.
    let mut walk: Vec<usize> = left.iter().position(|count| *count > 0).into_iter().collect();
    loop {
        let here = walk.last().copied().unwrap_or_default();
        let Some(next) = needs[here].iter().copied().find(|needed| left[*needed] > 0) else {
            return Err(walk);
        };
        if let Some(seen) = walk.iter().position(|place| *place == next) {
            let mut circle = walk.split_off(seen);
            circle.push(next);
            return Err(circle);
        }
        walk.push(next);
    }
}
