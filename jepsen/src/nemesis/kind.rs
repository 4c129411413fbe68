//! What the nemesis can do, by name.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// One kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Kill,
    Stop,
    Pause,
    Rolling,
    /// Links are cut, for which nodes need a network of their own.
    Cut(Cut),
    /// What nodes send is shaped, for which they do as well.
    Shape(Shape),
    CorruptFiles,
    LoseDisk,
    DiskFull,
    /// These need a disk in the hands of the harness.
    SlowDisk,
    FailingDisk,
    PowerCut,
    /// Wall clocks are wrong, for which nodes need a library that lies to them.
    Clock(Clock),
    Transfer,
    Move,
}

/// Which links are cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Cut {
    IsolateOne,
    IsolatePrimary,
    Halves,
    Ring,
    Bridge,
    OneWay,
    Flapping,
}

/// How links are bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Shape {
    Delay,
    Loss,
    Reorder,
    Duplicate,
    CorruptPackets,
    Rate,
}

/// How clocks are wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Clock {
    Jump,
    Strobe,
    Drift,
}

/// All kinds with their names.
const NAMES: [(Kind, &str); 28] = [
    (Kind::Kill, "kill"),
    (Kind::Stop, "stop"),
    (Kind::Pause, "pause"),
    (Kind::Rolling, "rolling"),
    (Kind::Cut(Cut::IsolateOne), "isolate-one"),
    (Kind::Cut(Cut::IsolatePrimary), "isolate-primary"),
    (Kind::Cut(Cut::Halves), "halves"),
    (Kind::Cut(Cut::Ring), "ring"),
    (Kind::Cut(Cut::Bridge), "bridge"),
    (Kind::Cut(Cut::OneWay), "one-way"),
    (Kind::Cut(Cut::Flapping), "flapping"),
    (Kind::Shape(Shape::Delay), "delay"),
    (Kind::Shape(Shape::Loss), "loss"),
    (Kind::Shape(Shape::Reorder), "reorder"),
    (Kind::Shape(Shape::Duplicate), "duplicate"),
    (Kind::Shape(Shape::CorruptPackets), "corrupt-packets"),
    (Kind::Shape(Shape::Rate), "rate"),
    (Kind::CorruptFiles, "corrupt-files"),
    (Kind::LoseDisk, "lose-disk"),
    (Kind::DiskFull, "disk-full"),
    (Kind::SlowDisk, "slow-disk"),
    (Kind::FailingDisk, "failing-disk"),
    (Kind::PowerCut, "power-cut"),
    (Kind::Clock(Clock::Jump), "clock-jump"),
    (Kind::Clock(Clock::Strobe), "clock-strobe"),
    (Kind::Clock(Clock::Drift), "clock-drift"),
    (Kind::Transfer, "transfer"),
    (Kind::Move, "move"),
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(kind, _)| *kind == self).map_or("?", |(_, name)| name)
    }

    /// Kinds of one family are drawn as often, together, as those of another.
    pub(super) fn family(self) -> &'static str {
        match self {
            Self::Kill | Self::Stop | Self::Pause | Self::Rolling => "processes",
            Self::Cut(_) => "links",
            Self::Shape(_) => "shapes",
            Self::CorruptFiles
            | Self::LoseDisk
            | Self::DiskFull
            | Self::SlowDisk
            | Self::FailingDisk
            | Self::PowerCut => "disks",
            Self::Clock(_) => "clocks",
            Self::Transfer | Self::Move => "hands",
        }
    }

    pub(crate) fn is_cut(self) -> bool {
        matches!(self, Self::Cut(_))
    }

    pub(crate) fn is_shape(self) -> bool {
        matches!(self, Self::Shape(_))
    }

    /// Whether the harness must stand between nodes and their disks.
    pub(crate) fn needs_faulty_disk(self) -> bool {
        matches!(self, Self::SlowDisk | Self::FailingDisk | Self::PowerCut)
    }

    pub(crate) fn is_clock(self) -> bool {
        matches!(self, Self::Clock(_))
    }

    /// How long a fault of this kind lasts, in a plan.
    pub(super) fn draw_length(self, rng: &mut ChaCha8Rng) -> Duration {
        let range = match self {
            Self::Transfer | Self::Move | Self::Rolling => 0..1,
            Self::Stop | Self::Kill => 100..6_000,
            Self::Pause => 100..5_000,
            Self::CorruptFiles | Self::LoseDisk => 100..2_000,
            Self::DiskFull => 1_000..4_000,
            Self::SlowDisk => 1_000..6_000,
            Self::FailingDisk => 500..3_000,
            Self::PowerCut => 50..2_000,
            Self::Cut(_) => 500..5_000,
            Self::Shape(_) | Self::Clock(_) => 2_000..8_000,
        };
        Duration::from_millis(rng.random_range(range))
    }
}

/// What a name on the command line stands for.
fn group(name: &str) -> Option<Vec<Kind>> {
    let all = || NAMES.iter().map(|(kind, _)| *kind);
    match name {
        "none" => Some(Vec::new()),
        "all" => Some(all().collect()),
        "partition" => Some(all().filter(|kind| kind.is_cut()).collect()),
        "netem" => Some(all().filter(|kind| kind.is_shape()).collect()),
        "clocks" => Some(all().filter(|kind| kind.is_clock()).collect()),
        name => NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| vec![*kind]),
    }
}

/// The nemesis of a run: kinds of faults, and whether those that are not possible here are passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) kinds: BTreeSet<Kind>,
    /// Kinds that were named themselves, and not as part of `all`.
    pub(crate) insisted: BTreeSet<Kind>,
}

impl Choice {
    /// Takes out kinds that are not possible; says which. Refuses if one of them was named itself.
    pub(crate) fn leave_out(
        &mut self,
        is_one: impl Fn(Kind) -> bool,
        why: &str,
    ) -> Result<Option<String>, String> {
        let names = |kinds: &BTreeSet<Kind>| -> Vec<&str> {
            kinds.iter().filter(|kind| is_one(**kind)).map(|kind| kind.name()).collect()
        };
        let insisted = names(&self.insisted);
        if !insisted.is_empty() {
            return Err(format!("not possible here: {}: {why}", insisted.join(", ")));
        }
        let left_out = names(&self.kinds);
        if left_out.is_empty() {
            return Ok(None);
        }
        self.kinds.retain(|kind| !is_one(*kind));
        Ok(Some(format!("{}: {why}", left_out.join(", "))))
    }
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut choice = Self { name: text.to_owned(), kinds: BTreeSet::new(), insisted: BTreeSet::new() };
        for name in text.split(',') {
            let kinds = group(name).ok_or_else(|| {
                let known: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
                format!(
                    "`{name}` is no nemesis; there are none, {}, partition (all that cut links), netem (all that shape \
                     them), clocks (all that make clocks wrong) and all; several with commas between them",
                    known.join(", ")
                )
            })?;
            choice.kinds.extend(&kinds);
            if name != "all" {
                choice.insisted.extend(kinds);
            }
        }
        Ok(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_kinds() {
        let kinds =
            |text: &str| text.parse::<Choice>().map(|choice| choice.kinds.into_iter().collect::<Vec<_>>());
        assert_eq!(kinds("none"), Ok(vec![]));
        assert_eq!(kinds("pause,kill"), Ok(vec![Kind::Kill, Kind::Pause]));
        assert_eq!(kinds("partition").unwrap().len(), 7);
        assert_eq!(kinds("netem").unwrap().len(), 6);
        assert_eq!(kinds("clocks").unwrap().len(), 3);
        assert_eq!(kinds("all").unwrap().len(), NAMES.len());
        assert!(kinds("kill,kil").unwrap_err().starts_with("`kil` is no nemesis; there are none, kill, "));
    }

    #[test]
    fn what_is_not_possible_is_left_out_unless_it_was_named() {
        let mut all: Choice = "all".parse().unwrap();
        let left_out = all.leave_out(|kind| kind == Kind::DiskFull, "no root");
        assert_eq!(left_out, Ok(Some("disk-full: no root".to_owned())));
        assert_eq!(all.leave_out(|kind| kind == Kind::DiskFull, "no root"), Ok(None));
        let mut named: Choice = "all,disk-full".parse().unwrap();
        assert!(named.leave_out(|kind| kind == Kind::DiskFull, "no root").is_err());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = NAMES.iter().map(|(_, name)| *name).collect();
        let kinds: BTreeSet<Kind> = NAMES.iter().map(|(kind, _)| *kind).collect();
        assert_eq!((names.len(), kinds.len()), (NAMES.len(), NAMES.len()));
    }
}
