//! The network card of a computer, and the kernel's buffers between it and the process that has the socket.
//!
//! ```text
//!   quinn ──▶ CardSocket ──▶ outbound ──▶ Card::work ──▶ SimulatedSocket ──▶ turmoil
//!   quinn ◀── CardSocket ◀── inbound  ◀── Card::work ◀── SimulatedSocket ◀── turmoil
//!        process                                  host of turmoil
//! ```
//!
//! The card works whatever the process does. While a process is frozen its packets wait in `inbound`, as many as the kernel
//! would keep; what finds no room there, and what comes for nobody, is lost.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::host::PORT;
use super::socket::{AlwaysWritable, SimulatedSocket};

/// Bytes of packets that wait for a process: what Linux keeps for a socket unless it is told otherwise.
const INBOUND_BYTES_MAX: usize = 212_992;

/// The largest packet that there is.
const PACKET_BYTES_MAX: usize = 1 << 16;

/// A packet, and where it comes from or goes to.
#[derive(Debug)]
struct Packet {
    peer: SocketAddr,
    contents: Vec<u8>,
}

#[derive(Debug, Default)]
struct Buffers {
    inbound: VecDeque<Packet>,
    inbound_bytes: usize,
    outbound: VecDeque<Packet>,
    /// Whether a process has the socket.
    is_bound: bool,
    /// Who is to be woken when there is something to read.
    reader: Option<Waker>,
    /// The same when there is something to send.
    sender: Option<Waker>,
    /// Packets that found no room.
    dropped: u64,
}

/// A network card.
#[derive(Debug, Default)]
pub(crate) struct Card(Mutex<Buffers>);

impl Card {
    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the socket to a process.
    pub(crate) fn bind(self: &Arc<Self>) -> Arc<CardSocket> {
        self.buffers().is_bound = true;
        Arc::new(CardSocket(Arc::clone(self)))
    }

    /// The process that had the socket is gone, and with it all that it has not read.
    pub(crate) fn unbind(&self) {
        let buffers = &mut *self.buffers();
        buffers.inbound.clear();
        buffers.inbound_bytes = 0;
        buffers.is_bound = false;
        buffers.reader = None;
    }

    /// Packets for processes that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.buffers().dropped
    }

    /// Moves packets between the network and the buffers, for ever.
    ///
    /// # Errors
    /// When the network is gone.
    pub(crate) async fn work(&self, socket: Arc<SimulatedSocket>) -> io::Result<Infallible> {
        let mut space = vec![0; PACKET_BYTES_MAX];
        std::future::poll_fn(|cx| self.poll(cx, &socket, &mut space)).await
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        socket: &SimulatedSocket,
        space: &mut [u8],
    ) -> Poll<io::Result<Infallible>> {
        let mut meta = [RecvMeta::default()];
        while let Poll::Ready(received) = socket.poll_recv(cx, &mut [IoSliceMut::new(space)], &mut meta) {
            if let Err(error) = received {
                return Poll::Ready(Err(error));
            }
            self.deliver(meta[0].addr, &space[..meta[0].len]);
        }
        let waiting = {
            let buffers = &mut *self.buffers();
            buffers.sender = Some(cx.waker().clone());
            std::mem::take(&mut buffers.outbound)
        };
        for Packet { peer, contents } in waiting {
            let transmit = Transmit {
                destination: peer,
                contents: &contents,
                ecn: None,
                segment_size: None,
                src_ip: None,
            };
            socket.try_send(&transmit)?;
        }
        Poll::Pending
    }

    fn deliver(&self, peer: SocketAddr, contents: &[u8]) {
        let buffers = &mut *self.buffers();
        if !buffers.is_bound {
            return;
        }
        if buffers.inbound_bytes + contents.len() > INBOUND_BYTES_MAX {
            buffers.dropped += 1;
            return;
        }
        buffers.inbound_bytes += contents.len();
        buffers.inbound.push_back(Packet { peer, contents: contents.to_vec() });
        if let Some(reader) = buffers.reader.take() {
            reader.wake();
        }
    }
}

/// The socket of a process.
pub(crate) struct CardSocket(Arc<Card>);

impl fmt::Debug for CardSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardSocket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for CardSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let buffers = &mut *self.0.buffers();
        buffers
            .outbound
            .push_back(Packet { peer: transmit.destination, contents: transmit.contents.to_vec() });
        if let Some(sender) = buffers.sender.take() {
            sender.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let buffers = &mut *self.0.buffers();
        let mut count = 0;
        for (space, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
            let Some(Packet { peer, contents }) = buffers.inbound.pop_front() else { break };
            buffers.inbound_bytes -= contents.len();
            let len = contents.len().min(space.len());
            space[..len].copy_from_slice(&contents[..len]);
            *meta = RecvMeta { addr: peer, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        buffers.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), PORT))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(socket: &CardSocket) -> Option<Vec<u8>> {
        let mut space = [0; 1500];
        let mut meta = [RecvMeta::default()];
        let mut cx = Context::from_waker(Waker::noop());
        let polled = socket.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut space)], &mut meta);
        polled.is_ready().then(|| space[..meta[0].len].to_vec())
    }

    #[test]
    fn what_comes_for_a_process_waits_as_far_as_there_is_room() {
        let card = Arc::new(Card::default());
        let peer = SocketAddr::from(([192, 168, 0, 1], 1));
        card.deliver(peer, &[1; 1000]);
        let socket = card.bind();
        assert_eq!(read(&socket), None, "nobody had the socket when it came");
        let room = INBOUND_BYTES_MAX / 1000;
        (0..room + 3).for_each(|_| card.deliver(peer, &[2; 1000]));
        assert_eq!(card.dropped(), 3);
        assert_eq!(read(&socket), Some(vec![2; 1000]));
        card.deliver(peer, &[3; 1000]);
        let waiting: Vec<Vec<u8>> = std::iter::from_fn(|| read(&socket)).collect();
        assert_eq!(waiting.len(), room);
        assert_eq!(waiting.last(), Some(&vec![3; 1000]), "in the order in which it came");
        card.deliver(peer, &[4; 1000]);
        card.unbind();
        assert_eq!(read(&card.bind()), None, "it went with the process that it came for");
    }
}
