//! Mutants: deliberate single mistakes in the protocol, planted to prove that the checks find them.
//!
//! A check that never failed is not known to work. Each mutant breaks one rule, in one or two lines beside the code that
//! keeps it: `if Mutant::OwnVoteBeforeSync.is_on() { .. }`. At most one is on in a process.
//!
//! Without the feature `mutants`, which no release has, [`Mutant::is_on`] is a constant `false` and all of them are compiled
//! out. With it, a mutant is switched on by [`Mutant::choose`] or, for tests, by the variable `VARVE_MUTANT`.

#[cfg(feature = "mutants")]
use std::sync::OnceLock;

#[cfg(feature = "mutants")]
static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();

/// The variable of the environment that switches a mutant on.
pub const VARIABLE: &str = "VARVE_MUTANT";

macro_rules! mutants {
    ($($variant:ident, $name:literal, $rule:literal, $mistake:literal;)+) => {
        /// A mistake that can be switched on.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutant {
            $(#[doc = $mistake] $variant,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The rule of the protocol that it breaks.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Self::$variant => $rule),+ }
            }

            /// What it does wrong, in one sentence.
            #[must_use]
            pub const fn mistake(self) -> &'static str {
                match self { $(Self::$variant => $mistake),+ }
            }
        }
    };
}

mutants! {
    AckBeforeDurable, "ack-before-durable", "N4", "A backup acknowledges what its disk does not hold yet.";
    OwnVoteBeforeSync, "own-vote-before-sync", "N5", "A primary counts itself for what its disk does not hold yet.";
    CommitQuorumMinusOne, "commit-quorum-minus-one", "N5", "One replica less than a quorum commits.";
    ReplyBeforeCommit, "reply-before-commit", "N5", "A request is answered when it is sealed.";
    ApplySkips, "apply-skips", "N5", "Of several prepares committed at once only the last is applied.";
    AnyPrepareOkCounts, "any-prepare-ok-counts", "N4", "An acknowledgement of another prepare counts for the one at its op.";
    OldPrepareOkCounts, "old-prepare-ok-counts", "V5", "An acknowledgement given in an older view counts.";
    OldPrepareTaken, "old-prepare-taken", "N3", "A prepare that was sent in an older view is taken.";
    WrongParentTaken, "wrong-parent-taken", "N3", "A prepare is appended to a log that does not hold its parent.";
    ConflictOverwritten, "conflict-overwritten", "N3", "A normal backup cuts its log for another prepare at the same op.";
    CommitUnnamed, "commit-unnamed", "N6", "A commit is believed by its op, without comparing its checksum.";
    CommitOfLaterView, "commit-of-later-view", "N6", "A commit told in a later view is applied to the log at hand.";
    CommitFloorTooHigh, "commit-floor-too-high", "N2", "A log's last prepare is taken to prove all before it committed.";
    PreparesNotRepeated, "prepares-not-repeated", "N7", "A primary never repeats a prepare.";
    RepeatsOneOnly, "repeats-one-only", "N7", "A primary repeats one prepare in a time-out, also to a backup that has lost all behind it.";
    TimestampsGoBack, "timestamps-go-back", "N2", "A prepare has its primary's time, even if its parent has a later one.";
    OffsetsMintedTwice, "offsets-minted-twice", "N2", "A prepare continues the offsets of the last committed one.";
    TakesRequestsAlone, "takes-requests-alone", "N8", "A primary that hears no quorum goes on taking requests.";
    NotConsulted, "client-table-not-consulted", "C2", "Every request is taken for a new one.";
    InFlightTwice, "in-flight-twice", "N1", "A retry of a request in flight is sealed again.";
    GapTaken, "gap-taken", "C2", "A request is taken although the one before it is missing.";
    TableReset, "client-table-reset", "C3", "A replica that enters a view forgets all sessions.";
    HighWatermarkAtLogEnd, "high-watermark-at-log-end", "D3", "The high watermark stands at the end of the log.";
    JoinsAnyProposal, "joins-any-proposal", "V1", "A replica that hears its primary joins those who do not.";
    ProposalNeedsNobody, "proposal-needs-nobody", "V2", "One replica alone ends a view.";
    ProposalNeverOld, "proposal-never-old", "V1", "A proposal counts for ever, also when it is not repeated any more.";
    ProposalCountsTwice, "proposal-counts-twice", "V2", "A proposal that is repeated counts again.";
    TellsBeforeViewSaved, "tells-before-view-saved", "P1", "A replica tells its log before the new view is on its disk.";
    ViewChangeQuorumMinusOne, "view-change-quorum-minus-one", "V4", "One replica less than a quorum chooses the log.";
    OldTaleCounts, "old-tale-counts", "V4", "What a replica told in an older view is counted in this one.";
    LongestLogWins, "longest-log-wins", "V4", "The longest log is chosen, whatever its log view.";
    SuffixDropped, "suffix-dropped", "V4", "A view starts with the largest commit told, and nothing above it.";
    SilentLacks, "silent-lacks", "V4", "A replica that was not heard counts as lacking a prepare.";
    CannotTellLacks, "cannot-tell-lacks", "V4", "A replica with a damaged slot counts as lacking the prepare.";
    LogViewBeforeLog, "log-view-before-log", "P2", "A replica works in a view before it holds that view's log.";
    OkInViewChange, "ok-in-view-change", "P2", "A replica acknowledges in a view whose log it does not hold yet.";
    OldStartViewTaken, "old-start-view-taken", "V6", "The log of an older view is installed in this one.";
    CutWithoutNeed, "cut-without-need", "V6", "A replica that was normal in a view lets an old announcement of that view cut its log.";
    CutTooFar, "cut-too-far", "V6", "A cut takes one prepare more than the new view's log conflicts with.";
    CutUnderWrites, "cut-under-writes", "V6", "A log is cut while appends to it are under way.";
    ViewNotGivenUp, "view-not-given-up", "V7", "A view that does not start is waited for for ever.";
    HandOverUnready, "hand-over-unready", "V8", "A primary hands over before its successor holds what it has sealed.";
    RepairUnverified, "repair-unverified", "R2", "A repaired prepare is taken by its op, without comparing its checksum.";
    NoRepair, "no-repair", "R1", "Nothing that is missing is ever asked for.";
    AwaitsForEver, "awaits-for-ever", "R1", "A backup that was sent prepares in order waits for ever for one that it only hears of.";
    AsksInStep, "asks-in-step", "R1", "Who can ask only the primary goes on asking as often as at first.";
    PrimaryResumes, "primary-resumes", "S1", "A restarted primary goes on in the view that it led.";
    RecoveryTrustsLog, "recovery-trusts-log", "S1", "A restarted replica takes its whole log for committed.";
    RecoveryFloorTooHigh, "recovery-floor-too-high", "S1", "A restarted replica takes all but its last eight prepares for committed.";
    LogNotSynced, "log-not-synced", "N4", "Appends are called durable before their sync.";
    JournalNotSynced, "journal-not-synced", "N4", "What the journal holds is called durable before its sync.";
    JournalNotReplayed, "journal-not-replayed", "S1", "A start forgets what the journal holds beyond a log.";
    JournalNotRenewed, "journal-not-renewed", "V6", "What was cut off of a log comes back from the journal.";
    SpareNotSynced, "spare-not-synced", "S1", "A segment that is written over an older one has its name before its own block is durable.";
    SuperblockNotSynced, "superblock-not-synced", "P1", "Superblocks are called durable before their sync.";
    FullDiskAcknowledges, "full-disk-acknowledges", "N4", "What waits because the disk is full is called durable.";
    ViewNotSaved, "view-not-saved", "P1", "A superblock that changes only the view is called durable and not written.";
    LogViewNotSaved, "log-view-not-saved", "P2", "A superblock that changes only the log view is called durable and not written.";
    SuperblockOvertaken, "superblock-overtaken", "P1", "A prepare can reach the disk before the view that it belongs to.";
    CutNotOnDisk, "cut-not-on-disk", "V6", "A cut log keeps its length on disk.";
    TornTailTooLong, "torn-tail-too-long", "N4", "The last round of writes is cut at every start as if it were torn.";
    TornTailKept, "torn-tail-kept", "N4", "What is behind the first gap of a torn round stays in the file.";
    RotTakenForTear, "rot-taken-for-tear", "V3", "Damage to what may have been acknowledged is cut like a torn write.";
    TornTellsLog, "torn-tells-log", "V3", "A replica whose log has lost its end tells the others what is left of it as if it were all.";
    TornTakesOldLog, "torn-takes-old-log", "V3", "A replica whose log has lost its end takes an older announcement of its view for what it had.";
    MemoryVotesAfterCrash, "memory-replica-votes-after-crash", "S3", "A replica that acknowledged from memory and stopped uncleanly tells what its disk holds as if it were all.";
    MemoryMarkNotSaved, "memory-mark-not-saved", "S3", "A replica acknowledges from memory before its disk says that it may.";
    MemoryMarkLifted, "memory-mark-lifted", "S3", "The mark of a stop that would be unclean is taken back before all is synced.";
    TornForgotten, "torn-forgotten", "V3", "That a log has lost its end is known for the life that found it only.";
    MendedUnverified, "mended-unverified", "R2", "What fills a hole is taken by its op, without comparing its checksum.";
    OldKeyWritten, "old-key-written", "S1", "A segment goes on with the key that it began with, although there is a newer one.";
    NonceRepeated, "nonce-repeated", "S1", "Everything is sealed with the same nonce.";
    ScrubTrustsHeaders, "scrub-trusts-headers", "R4", "A look at a log passes over bodies that have rotted.";
    PatchNotWritten, "patch-not-written", "R4", "What has rotted is called mended and not written.";
    SnapshotUnlinked, "snapshot-unlinked", "R4", "A snapshot is gone on from without comparing the prepare behind it.";
    AnswersNotSummedUp, "answers-not-summed-up", "S1", "What metadata operations were answered is forgotten when their log is summed up.";
    RottenLeavesAlone, "rotten-leaves-alone", "R4", "A replica gives up a rotten log before a primary has said that it works.";
    MendingVotes, "mending-votes", "R2", "A replica whose log has a hole takes part with what is before it.";
    ReadsAboveCommit, "reads-above-commit", "D1", "Consumers are given what is not committed.";
    LostDiskVotes, "lost-disk-votes", "S4", "A replica that has lost its disk votes as the one it was.";
    VoiceNotSaved, "voice-not-saved", "S4", "A replica that was let in votes before it will know that after a restart.";
    ReplacedTaleCounts, "replaced-tale-counts", "S4", "What a replica told before it lost its disk counts after it was replaced.";
    FoundsAlone, "founds-alone", "S4", "A node with an empty disk founds its cluster without asking the others.";
    FormerHeard, "former-heard", "E2", "A replica that another has taken the place of is heard in its name.";
    SuccessorHeard, "successor-heard", "E1", "A replica that is to take a place is heard before it has it.";
    EarlierStayCounts, "earlier-stay-counts", "E2", "A replica that has come again takes an entry of its earlier stay for its voice.";
    ArrivalNotSaved, "arrival-not-saved", "E2", "A replica comes to a node before that will know so after a restart.";
    PendingHeard, "pending-heard", "E2", "Whom an uncommitted entry puts in a place is heard there.";
    ReplacedCounts, "replaced-counts", "E2", "A replica that an entry puts in a place acknowledges that entry.";
    EarlierVoiceTold, "earlier-voice-told", "E1", "A voice that a replica got in an earlier stay is told as that of the present one.";
    NoWayMade, "no-way-made", "E1", "A primary whose place another is to take goes on leading.";
    EarlierStayKept, "earlier-stay-kept", "E2", "A replica that went and came again, as was learnt in one go, keeps what it has promised.";
    RebirthForgiven, "rebirth-forgiven", "V1", "A primary that is heard again is not suspected, although it was started anew.";
    SealedBehindChange, "sealed-behind-change", "E2", "Requests are sealed behind an entry that changes who counts, before that is committed.";
    LeaverNotMissed, "leaver-not-missed", "E2", "A replica leaves with a copy that those who stay do not have on a quorum.";
    PendingForEver, "pending-for-ever", "E2", "A view that starts behind a change does not know it to be committed.";
    VacantPlaceLeads, "vacant-place-leads", "E2", "Views are proposed that a vacant place would lead.";
    CountedWithoutVoice, "counted-without-voice", "E1", "The word of a newcomer counts before it has a voice.";
    OthersNotAsked, "others-not-asked", "E1", "A replica leaves although too few of the others are up.";
    OldWishObeyed, "old-wish-obeyed", "E1", "A primary whose metadata are old undoes what was brought about by a later wish.";
    ChangeAtOnce, "change-at-once", "E2", "An entry that changes who counts is committed by those after it.";
    FormerDiskReturns, "former-disk-returns", "S4", "A data directory whose place another one took takes its place back.";
    ReadUnconfirmed, "read-unconfirmed", "D2", "A primary says where the log ends without asking whether it is still the primary.";
    ReadOldRoundCounts, "read-old-round-counts", "D2", "An answer to a question of before the read counts for it.";
    ReadOldViewConfirmed, "read-old-view-confirmed", "D2", "A replica confirms a view that it has left.";
    ReadBeforeStartLog, "read-before-start-log", "D2", "A new primary answers reads before it has committed what its view started with.";
    ResumePointAhead, "resume-point-ahead", "S1", "A resume point is taken at the end of the log instead of the commit.";
    ResumePointUnmet, "resume-point-unmet", "S1", "A start goes on from a resume point whose prepare is not in the log.";
    SnapshotNotAwaited, "snapshot-not-awaited", "R3", "A replica speaks for a snapshot that is not durable yet.";
    KeepsTooLittle, "keeps-too-little", "R3", "More is let go than the topic's retention allows.";
    BombTaken, "bomb-taken", "C4", "A batch is decompressed to whatever size it announces.";
    CompressedUnverified, "compressed-unverified", "C4", "A node takes compressed records without looking into them.";
    HeadersUnordered, "headers-unordered", "C4", "Headers are taken in any order, and with a key twice.";
    FilesDeletedEarly, "files-deleted-early", "P1", "A deleted group's files go before the deletion is known to outlast a restart.";
    SpeaksNewest, "speaks-newest", "U1", "A node speaks the newest version that its release knows, whatever the cluster's is.";
    SealsNewest, "seals-newest", "U1", "A primary seals in the newest version that its release knows, whatever the cluster's is.";
    VersionRaisedAlone, "version-raised-alone", "U2", "The cluster goes on to a version that not all its nodes know.";
}

impl Mutant {
    /// The mutant of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// Whether this mistake is to be made.
    #[cfg(not(feature = "mutants"))]
    #[inline]
    #[must_use]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether this mistake is to be made.
    #[cfg(feature = "mutants")]
    #[inline]
    #[must_use]
    pub fn is_on(self) -> bool {
        *CHOSEN.get_or_init(from_environment) == Some(self)
    }

    /// Switches this mistake on, for good.
    ///
    /// # Panics
    /// If one was switched on before, or was asked for.
    #[cfg(feature = "mutants")]
    pub fn choose(self) {
        assert!(CHOSEN.set(Some(self)).is_ok(), "a mutant is chosen once, and before anything runs");
    }
}

#[cfg(feature = "mutants")]
fn from_environment() -> Option<Mutant> {
    let name = std::env::var(VARIABLE).ok()?;
    Some(Mutant::from_name(&name).unwrap_or_else(|| panic!("{VARIABLE}={name:?} names no mutant")))
}

#[cfg(not(feature = "mutants"))]
const _: () = assert!(!Mutant::AckBeforeDurable.is_on(), "without the feature there are no mutants");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        let names: BTreeSet<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::from_name(mutant.name()), Some(*mutant));
        }
        assert_eq!(Mutant::from_name("no-such-mutant"), None);
    }
}
