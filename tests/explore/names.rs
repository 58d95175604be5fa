//! Calls that are alike may change their names, and nothing else changes. So two states that differ
//! in such names alone are looked at once.

use crate::callers::CallSpec;
use crate::world::{Ms, Op, Queued, Record, View, Who};

/// New names of a scenario's calls, by their own.
#[derive(Debug, Clone)]
pub struct Names(Vec<Who>);

/// Every way to rename calls that are alike; the first one leaves all as it is.
pub fn alike(calls: &[CallSpec]) -> Vec<Names> {
    let mut found = vec![Vec::new()];
    for spec in calls {
        let longer = found.into_iter().flat_map(|names: Vec<Who>| {
            let free = (0..calls.len() as Who)
                .filter(|who| calls[usize::from(*who)] == *spec && !names.contains(who));
            free.map(|who| names.iter().copied().chain([who]).collect()).collect::<Vec<_>>()
        });
        found = longer.collect();
    }
    found.into_iter().map(Names).collect()
}

impl Names {
    pub fn of(&self, who: Who) -> Who {
        self.0.get(usize::from(who)).copied().unwrap_or(who)
    }

    pub fn are_own(&self) -> bool {
        self.0.is_sorted()
    }

    pub fn of_op(&self, op: Op) -> Op {
        match op {
            Op::Ask { who, stage, content, distrust } => {
                let distrust = distrust.map(|who| self.of(who));
                Op::Ask { who: self.of(who), stage, content, distrust }
            }
            Op::Settle { who, verdict } => Op::Settle { who: self.of(who), verdict },
        }
    }

    pub fn of_list(&self, list: &[(Who, Ms)]) -> Vec<(Who, Ms)> {
        let mut renamed: Vec<_> = list.iter().map(|(who, ms)| (self.of(*who), *ms)).collect();
        renamed.sort_unstable();
        renamed
    }

    pub fn of_view(&self, view: &View) -> View {
        let record = view.record.map(|record| Record {
            holder: record.holder.map(|who| self.of(who)),
            body: record.body.map(|who| self.of(who)),
            ..record
        });
        let queue = view.queue.iter().map(|queued| Queued { who: self.of(queued.who), ..*queued });
        let (flights, queue) = (self.of_list(&view.flights), queue.collect());
        View { record, flights, queue, ..view.clone() }
    }
}
