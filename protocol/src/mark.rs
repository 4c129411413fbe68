//! Marks: named points of the protocol that tests are to get to.
//!
//! A test that passes proves nothing about code that it never ran. Each mark stands for something that a reader of the protocol
//! would ask of a test: does it ever get there? It is set by one line beside the code: `Mark::SuffixCut.hit()`. The simulator
//! counts the marks of each universe, and tells those that no universe has hit.
//!
//! Without the feature `marks`, which only the simulator asks for, [`Mark::hit`] does nothing and is compiled out. With it, each
//! thread has counters of its own: what happens on a thread between two calls of [`take`] is what the second one gives.

#[cfg(feature = "marks")]
use std::cell::Cell;

macro_rules! marks {
    ($($room:literal { $($variant:ident, $sentence:literal;)+ })+) => {
        /// Something that happened.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mark {
            $($(#[doc = $sentence] $variant,)+)+
        }

        impl Mark {
            /// All of them, in the order of the packages that they are in.
            pub const ALL: &[Self] = &[$($(Self::$variant),+),+];

            /// The package that it is in.
            #[must_use]
            pub const fn room(self) -> &'static str {
                match self { $($(Self::$variant => $room),+),+ }
            }

            /// What happened, in one sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $($(Self::$variant => $sentence),+),+ }
            }
        }
    };
}

marks! {
    "consensus" {
        PrimarySuspected, "A backup gave its primary up.";
        PrimaryDoubtful, "A primary heard no quorum, or got nothing done, and took no more requests.";
        ProposalJoined, "A replica joined another one's proposal of a view.";
        ProposalIgnored, "A replica went on although another one proposed a view.";
        ProposalWithdrawn, "A replica withdrew its proposal: it was content with its primary again.";
        ViewEntered, "A replica left its view for a later one.";
        ViewGivenUp, "A view change took too long, and the next view was proposed.";
        LogChosen, "A new primary chose the log of its view.";
        LogUndecided, "What a quorum told was not enough to choose a log.";
        PrepareRuledOut, "A prepare was left out of a view's log because enough replicas lacked it.";
        BranchesTold, "Two replicas told different prepares of the same op in a view change.";
        ReplacedIgnored, "What a replica had told in a view change counted for nothing, because it was replaced.";
        LogForfeited, "A new primary lacked much of its view's log, and another one was to lead.";
        SuffixCut, "A replica cut what it had beyond its view's log.";
        CutAwaited, "A replica had to wait for its disk before it could cut its log.";
        ConflictFound, "A working backup was sent another prepare than the one it held.";
        StartViewTooOld, "A torn replica did not take an announcement of its view's log that may be too old.";
        LaterViewHeard, "A replica asked for the log of a later view that it had heard of.";
        PrepareAside, "A backup put a prepare aside that came before the one it follows.";
        PreparesRepeated, "A primary repeated prepares that were not acknowledged.";
        MoreRepeated, "A primary repeated more prepares to a backup that had lost all behind the one repeated before.";
        HeadersLearned, "A replica learned headers that it lacked.";
        PrepareRepaired, "A replica fetched a prepare that it lacked.";
        RepairRefused, "Who was asked for a prepare did not have it, and another was asked.";
        RepairRepeated, "Nobody answered a question for what was missing, and it was asked again.";
        PrepareAwaited, "A backup waited for a prepare that it had only heard of, for the primary had sent all before it.";
        StreamEnded, "A backup waited for such a prepare in vain, and asked for it.";
        FactsDistrusted, "What was learned of a view's log did not fit together.";
        DiskOutrun, "A replica stopped taking prepares until its disk had caught up.";
        BackupRestarted, "A backup restarted in a view that goes on.";
        PrimaryRestarted, "A restarted replica did not resume the view that it had led.";
        ChangeRestarted, "A replica restarted in the middle of a view change.";
        HandoverBegun, "A primary began to hand its view over.";
        HandoverRefused, "A primary did not hand over to a replica that was far behind.";
        HandoverGivenUp, "A handover took too long.";
        StallFound, "A primary found that nothing moved, and gave its view up.";
        StallEnded, "What had stood still moved again before another led.";
        ReadConfirmed, "A quorum confirmed a view for a read.";
        ReadHeldBack, "A read waited until the log that its view started with was committed.";
        ReadRepeated, "A question to confirm a view was repeated.";
        ReadUnanswered, "Nobody confirmed a view, and its reads were refused.";
        RequestKnown, "A request was answered with its first outcome.";
        RequestInFlight, "A request came again while it was under way.";
        RequestForgotten, "A request was too old to be remembered.";
        RequestOutOfOrder, "A request was refused because one before it was missing.";
        WindowFull, "A primary took no request because its window was full.";
        SnapshotTaken, "A replica took another one's snapshot in place of its log.";
        MetadataTaken, "A node took the metadata from another one's snapshot.";
        SnapshotPutOff, "A replica could not take a snapshot before its disk had caught up.";
        TornSilent, "A torn replica asked for the log instead of telling its own.";
        TornRecovered, "A torn replica worked again.";
        RestartUnsafe, "A torn replica found that the others were no quorum without it.";
        ForcedOn, "An operator had a torn replica go on with what it held.";
        AcknowledgedEarly, "A replica acknowledged what it held in memory only.";
        MarkLifted, "A replica took back that it had acknowledged what was not synced.";
        SyncedForRoom, "So much waited for a sync that it was not put off any longer.";
        VoiceGained, "A replica without a voice got one.";
        ListenerAsked, "A replica without a voice led a view by its place, and had others go on to the next.";
        MembersPending, "A primary took no request because it was not settled who counts.";
        ChangeImplied, "A new primary knew by what was behind it that an entry of who counts was committed.";
        StayingAwaited, "An entry that lets a replica go had to wait for those who stay.";
        AbsentPassedOver, "A view was passed over that nobody who counts would lead.";
    }
    "storage" {
        SegmentSealed, "A segment was full, and the next one begun.";
        TornRoundCut, "A start cut a round of writes that had not come to its end.";
        TailBehindSealCut, "A start cut what was behind the end of a sealed segment.";
        EndLost, "A start found that the log had lost its end.";
        DirectoryLost, "A start found nothing of a log that there was.";
        SnapshotLost, "A start could not read the snapshot that a log builds on.";
        HoleInFile, "A start found a hole between sound prepares of a file.";
        HoleBetweenFiles, "A start found that something was missing before a file.";
        FilePutAside, "A start put a file aside of which nothing could be made.";
        BlockDerived, "A start derived a rotten local block from what is around it.";
        SlotContradicted, "A start found prepares that contradict their file's slot.";
        KeyDerived, "A start derived the key of a file with a rotten local block from what is left in it.";
        KeyRolled, "A segment was begun because there was a newer key.";
        KeyRemade, "A segment in which nothing was yet was made anew for a newer key.";
        ResumePointSaved, "A resume point was kept.";
        ResumePointMet, "A start went on from a resume point.";
        ResumePointVoid, "A start could not go on from its resume point, and read the log from its beginning.";
        SegmentPassedOver, "A start took a sealed segment from its index.";
        IndexRebuilt, "A start wrote the index of a sealed segment anew.";
        SegmentsLetGo, "Segments were let go, and a snapshot made of them.";
        LetGoPutOff, "Segments could not be let go, because they could not be read or there was no room.";
        LetGoWithPeers, "Segments that could not be read were let go with another replica's snapshot.";
        LetGoInSegment, "That snapshot ended within a segment.";
        LogGivenUp, "A log in use was given up, for no other replica's snapshot fitted what had rotted in it.";
        TransferEnded, "A start ended a transfer of a snapshot that a crash had interrupted.";
        JournalRound, "What a round had appended to several logs was made durable by the journal.";
        JournalRelieved, "A log with much in the journal was synced where it is.";
        JournalCheckpoint, "What the journal held was synced where it was, and the journal began anew.";
        JournalReplayed, "A start appended to a log what the journal held beyond it.";
        JournalDamaged, "A start could not tell what the journal had held.";
        SuperblocksMended, "The superblocks had rotted while a node ran, and were written anew.";
        SuperblocksDiffered, "A start found that the two copies of the superblocks differ.";
        RemainsRemoved, "A start removed what was left of a group's files.";
        LogWaits, "What is appended to a log waited for room on the disk.";
        JobWaits, "A job on a whole log waited for room on the disk.";
        SuperblocksWait, "Superblocks found no room, and waited.";
        FoundersWait, "The founding of a cluster found no room, and waited.";
        SpareUsed, "A segment was written over one that was let go of.";
        SparesGivenUp, "What logs had put by was given up, because the disk was full.";
        ReserveGivenBack, "The reserve was given back for something that had to be written.";
        ReserveRestored, "There was room for the reserve again.";
        HoleFilled, "A hole in a log was filled.";
        HolesGivenUp, "A log was made to end before a hole.";
        DamageFound, "A look at a log in use found prepares that cannot be read.";
        SearchPutOff, "The next sound prepare behind damage was not found in one look.";
        BranchFound, "A look at a log in use found a segment of another branch.";
        DamagePatched, "What could not be read of a log in use was written anew.";
        PatchRefused, "What was to be written where something was damaged did not fit there.";
        BlockMended, "A local block of a log in use was written anew.";
        FileMended, "A sealed file of a log in use that was gone was made anew.";
        FileRewritten, "The file that a log in use is appended to was gone, and was written anew.";
        SnapshotRotten, "A look at a log in use found that its snapshot cannot be read.";
        SnapshotRestored, "The snapshot of a log in use was given back by a peer.";
    }
    "replica" {
        ClusterFounded, "Fresh nodes founded a cluster.";
        FounderLate, "A founder learned of the founding from those who had saved it.";
        NewDiskJoined, "A node with an empty disk joined a cluster that was there.";
        FreshPeerGivenUp, "A peer whose disk did not take the founding was suspected.";
        UnledFound, "The first primary of a group that is new has not said a word, though its node is heard.";
        PatienceGrown, "A peer that was suspected without cause was given more time.";
        PauseNoticed, "A node noticed that it had been paused.";
        RebirthNoticed, "A primary had restarted, and its backups did not wait for silence.";
        PrimaryRestored, "A node that had come back and stayed was handed a group again.";
        FullGaveWay, "A node handed a group over because its disk was full.";
        CatchUpHeldBack, "A node did not send more to those who catch up for a moment.";
        MendingBegun, "A replica began to have holes in its log mended.";
        MendingServed, "A replica that was being mended gave another one what it held.";
        MendingBranched, "The two ends of a log with a hole did not belong together.";
        MendingInVain, "Nobody had what was missing in a log.";
        MendingGone, "What was missing in a log had been let go by the others.";
        MendingDone, "A log was mended, and opened.";
        ReplicaClosed, "A replica was damaged so that it took no part.";
        WoundWidened, "All of a segment was fetched, because what was around its damage did not belong together.";
        WoundPutOff, "Damage could not be mended for now, and another one's turn had come.";
        NoneFitted, "Nothing that others have in the place of what has rotted in a log fitted it.";
        BegunAnew, "A replica whose log nothing makes whole left its group until a primary works without it.";
        WoundGivenUp, "What was fetched for damage could not be put back.";
        OldestLetGo, "A log let go of its oldest segments.";
        MetadataLetGo, "The log of the metadata let go of its oldest segments.";
        AllLetGo, "A log let go of all that was before the entry that says so.";
        SnapshotServed, "A replica sent its snapshot to one that lacked what was let go.";
        GroupDeleted, "The files of a group that is no longer here were deleted.";
        ReturnAwaited, "A group that came back to a node waited for its files of before to be gone.";
        LostSeated, "A primary let a replica in that had lost its disk.";
        MoverSeated, "A primary let a replica into the place of one that goes to another node.";
        JoinerSeated, "A primary let a replica into a vacant place.";
        JoinerCounted, "A primary had a replica count that was let into a vacant place.";
        LeaverVacated, "A primary had a replica leave its place.";
        MoveFinished, "The primary of the metadata noted that a replica had come, gone or moved.";
        WayMade, "A primary that was to move handed over first.";
        LeavingFollowed, "Something was put behind an entry by which a replica left.";
        StrangerDropped, "A message was dropped of a node that does not speak for that place, or not any more.";
        FirstVersionRaised, "A new cluster went on to the newest version that all its nodes know.";
        VersionRaised, "A node learnt that its cluster is at a newer version.";
        SpokenAhead, "A node was spoken to in a version that it had not heard of yet.";
        ReleaseShutOut, "A node was left out whose release does not know the cluster's version.";
    }
    "transport" {
        LaneFull, "A frame for another node found no room in its lane, and was dropped.";
    }
}

impl Mark {
    /// Notes that it happened.
    #[cfg(not(feature = "marks"))]
    #[inline(always)]
    pub const fn hit(self) {}

    /// Notes that it happened.
    #[cfg(feature = "marks")]
    #[inline]
    pub fn hit(self) {
        HITS.with(|hits| {
            let hits = &hits[self as usize];
            hits.set(hits.get() + 1);
        });
    }
}

#[cfg(not(feature = "marks"))]
const _: () = Mark::ViewEntered.hit();

/// How often each mark was hit.
#[cfg(feature = "marks")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hits([u64; Mark::ALL.len()]);

#[cfg(feature = "marks")]
impl Hits {
    /// Nothing happened.
    pub const NONE: Self = Self([0; Mark::ALL.len()]);

    /// How often a mark was hit.
    #[must_use]
    pub fn of(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }
}

#[cfg(feature = "marks")]
thread_local! {
    static HITS: [Cell<u64>; Mark::ALL.len()] = const { [const { Cell::new(0) }; Mark::ALL.len()] };
}

/// What was hit on this thread since the last call.
#[cfg(feature = "marks")]
pub fn take() -> Hits {
    HITS.with(|hits| Hits(std::array::from_fn(|place| hits[place].take())))
}

#[cfg(all(test, feature = "marks"))]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_once_and_by_each_thread_for_itself() {
        assert_eq!(take(), Hits::NONE);
        Mark::ViewEntered.hit();
        Mark::StrangerDropped.hit();
        Mark::StrangerDropped.hit();
        let elsewhere = std::thread::spawn(take).join().expect("the thread ends");
        assert_eq!(elsewhere, Hits::NONE);
        let here = take();
        assert_eq!([Mark::ViewEntered, Mark::StrangerDropped].map(|mark| here.of(mark)), [1, 2]);
        assert_eq!(here.0.iter().sum::<u64>(), 3);
        assert_eq!(take(), Hits::NONE);
    }

    #[test]
    fn marks_stand_in_the_order_of_all() {
        assert!(Mark::ALL.iter().enumerate().all(|(place, mark)| *mark as usize == place));
        assert!(Mark::ALL.is_sorted_by_key(|mark| {
            ["consensus", "storage", "replica", "transport"].iter().position(|room| *room == mark.room())
        }));
    }
}
