//! How fast the core is by itself: three replicas in one thread, messages and disk completions handed over at once, a full
//! window in flight. Prints committed prepares per second. Run it with `--release`.

use std::collections::VecDeque;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_consensus::event::{Request, RequestHandle};
use varve_consensus::{Config, Input, Output, Replica, Timeouts};
use varve_protocol::durability::Durability;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, Op, ProducerId, ReplicaIndex, RequestNumber, Timestamp,
};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::prepare::PrepareKind;
use varve_protocol::time::Moment;
use varve_protocol::version::Version;

const ROUNDS: u64 = 1_000_000;
const BODY_BYTES: usize = 1024;

struct Group {
    replicas: Vec<Replica>,
    under_way: VecDeque<(usize, Input)>,
    committed: u64,
}

impl Group {
    fn new() -> Self {
        let replica = |index: u8| {
            let config = Config {
                cluster: ClusterId::new(1),
                group: GroupId::new(1),
                epoch: Epoch::ZERO,
                replica: ReplicaIndex::new(index),
                founders: 3,
                places: 3,
                directory: DirectoryId::new(u64::from(index) + 1),
                arrived: Op::ZERO,
                is_original: true,
                durability: Durability::QuorumDisk,
                timeouts: Timeouts::default(),
            };
            Replica::new(config, ChaCha8Rng::seed_from_u64(u64::from(index)))
        };
        Self { replicas: (0..3).map(replica).collect(), under_way: VecDeque::new(), committed: 0 }
    }

    fn step(&mut self, at: usize, input: Input) {
        self.replicas[at].step(Moment::ZERO, input);
        while let Some(output) = self.replicas[at].poll_output() {
            match output {
                Output::Send { to, message } => {
                    let from = self.replicas[at].config().replica;
                    self.under_way.push_back((usize::from(to.as_raw()), Input::Message { from, message }));
                }
                Output::Append(prepare) => self.under_way.push_back((at, Input::Durable(prepare.id()))),
                Output::SaveSuperblock(superblock) => {
                    self.under_way.push_back((at, Input::SuperblockDurable(superblock)));
                }
                Output::Reply { .. } => self.committed += 1,
                Output::Apply(_)
                | Output::TakeSnapshot(_)
                | Output::ReplyToRead { .. }
                | Output::Sync
                | Output::Truncate { .. }
                | Output::ServePrepares { .. }
                | Output::ServeHeaders { .. } => {}
            }
        }
    }

    fn request(&mut self, number: u64, body: Bytes) {
        let request = Request {
            version: Version::FIRST,
            handle: RequestHandle(number),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
            kind: PrepareKind::Records,
            record_count: 1,
            now: Timestamp::new(number),
            body,
        };
        self.step(0, Input::Request(request));
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement needs a clock; the core has none")]
#[expect(clippy::disallowed_types, reason = "a measurement needs a clock; the core has none")]
fn main() {
    let body = Bytes::from(vec![7; BODY_BYTES]);
    for window in [1, PREPARES_IN_FLIGHT_MAX] {
        let mut group = Group::new();
        let start = std::time::Instant::now();
        let mut asked = 0;
        while group.committed < ROUNDS {
            while asked < ROUNDS && asked - group.committed < window {
                group.request(asked, body.clone());
                asked += 1;
            }
            while let Some((at, input)) = group.under_way.pop_front() {
                group.step(at, input);
            }
        }
        let rate = u128::from(ROUNDS) * 1_000_000 / start.elapsed().as_micros().max(1);
        println!("window {window:>2}: {rate} rounds per second, {BODY_BYTES} bytes each");
    }
}
