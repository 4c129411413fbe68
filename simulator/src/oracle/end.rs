//! The last word of the oracle: what must be there when every replica has been read.

use std::collections::BTreeMap;

use varve_protocol::id::{GroupId, NodeId, ProducerId};

use super::{Append, Oracle, State, Violation};

impl Oracle {
    /// The last word, after every replica of `group` has been read from start to end: `ends` says where each one ended.
    /// Every record of those reads must have gone through [`Oracle::observed`], in order and without gaps.
    ///
    /// # Errors
    /// When a promise was broken.
    pub fn verify_end(&self, group: GroupId, ends: &BTreeMap<NodeId, u64>) -> Result<(), Violation> {
        let Some(log) = self.logs.get(&group) else { return Ok(()) };
        let longest = ends.values().copied().max().unwrap_or_default();
        if let Some((node, end)) = ends.iter().find(|(_, end)| **end != longest) {
            let detail = format!("{group} ends at {end} on {node} and at {longest} elsewhere");
            return Err(Violation::new("replicas disagree", detail));
        }
        let mut next = 0;
        for (base_offset, id) in &log.slots {
            let append = &self.appends[id.0];
            let end = base_offset + append.count();
            if end > longest && append.state == State::Acked {
                let detail =
                    format!("{} at offset {base_offset}; {group} ends at {longest}", append.describe());
                return Err(Violation::new("acknowledged record lost", detail));
            }
            if end > longest {
                let detail = format!("{} was read at offset {base_offset}", append.describe());
                return Err(Violation::new("committed record lost", detail));
            }
            let is_kept = *base_offset >= log.start;
            if is_kept && *base_offset != next.max(log.start) {
                let detail = format!("{group} holds nothing known from offset {next} to {base_offset}");
                return Err(Violation::new("hole in the log", detail));
            }
            next = end;
        }
        let next = next.max(log.start);
        if next != longest {
            let detail = format!("{group} ends at {longest}, and the last known record before {next}");
            return Err(Violation::new("hole in the log", detail));
        }
        if log.known_end > longest {
            let detail = format!("{group} ends at {longest}; {} was told to be there", log.known_end);
            return Err(Violation::new("committed record lost", detail));
        }
        self.verify_sessions(group)
    }

    /// The requests of each session stand in order, and none is missing before one that is there.
    fn verify_sessions(&self, group: GroupId) -> Result<(), Violation> {
        let mut sessions: BTreeMap<(ProducerId, u64), &Append> = BTreeMap::new();
        for append in self.appends.iter().filter(|append| append.invocation.group == group) {
            if let Some(session) = append.invocation.session {
                sessions.insert(session, append);
            }
        }
        let mut before: Option<((ProducerId, u64), Option<u64>)> = None;
        for (session, append) in sessions {
            let same = before.filter(|(other, _)| other.0 == session.0);
            if let (Some((_, earlier)), Some(offset)) = (same, append.placed) {
                match earlier {
                    // It may have been let go before anybody read it.
                    None if self.logs.get(&group).is_some_and(|log| log.start > 0) => {}
                    None => {
                        let detail =
                            format!("{} stands at {offset}, the one before nowhere", append.describe());
                        return Err(Violation::new("request skipped", detail));
                    }
                    Some(earlier) if earlier > offset => {
                        let detail =
                            format!("{} stands at {offset}, the one before at {earlier}", append.describe());
                        return Err(Violation::new("records reordered", detail));
                    }
                    Some(_) => {}
                }
            }
            before = Some((session, append.placed));
        }
        Ok(())
    }
}
