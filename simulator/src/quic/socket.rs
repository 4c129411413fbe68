//! QUIC's two seams over the simulated network: the runtime (timers, tasks, the clock) and the UDP socket.
//!
//! The network below delivers every packet after the same time. All weather is made here, packet by packet, from the seed:
//!
//! ```text
//!   quinn ──▶ try_send ──▶ fate: lost │ arrives │ doubled │ delayed │ corrupted ──▶ turmoil ──▶ poll_recv ──▶ quinn
//! ```
//!
//! One datagram per send, no segmentation offload, no ECN. A send never fails: what the network does not take is lost, as
//! on a real one.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use turmoil::net::UdpSocket;

use crate::random::{chance, duration_between};
use crate::trace::Fate;

/// How long a delayed packet is held back at most.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// quinn's runtime in a simulated host: Tokio's paused clock and the host's own tasks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimulatedRuntime;

impl Runtime for SimulatedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a simulated host has no sockets of the real kernel"))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// What the network does to the packets that one socket sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Packets lost, in a thousand.
    pub loss_permille: u32,
    /// Packets that arrive twice, in a thousand.
    pub duplicate_permille: u32,
    /// Packets overtaken by later ones, in a thousand.
    pub reorder_permille: u32,
    /// Packets of which some bits are others on arrival, in a thousand.
    pub corrupt_permille: u32,
    /// Bytes of the largest packet that gets through; none: any does. Who sends a larger one is not told.
    pub packet_bytes_max: Option<usize>,
}

/// Is told of every packet: destination, size, fate.
pub type OnPacket = Arc<dyn Fn(SocketAddr, usize, Fate) + Send + Sync>;

/// The weather of a socket, which the world may change while it is in use.
#[derive(Clone, Debug, Default)]
pub struct SharedWeather(Arc<Mutex<Weather>>);

impl SharedWeather {
    /// Weather that can be changed.
    #[must_use]
    pub fn new(weather: Weather) -> Self {
        Self(Arc::new(Mutex::new(weather)))
    }

    /// Changes it.
    pub fn set(&self, weather: Weather) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    fn get(&self) -> Weather {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A UDP socket of a simulated host.
pub struct SimulatedSocket {
    socket: Arc<UdpSocket>,
    /// Waits for a packet. It locks the socket's queue, so that it has to be dropped before anything is received.
    readable: Mutex<Option<Readable>>,
    rng: Mutex<ChaCha8Rng>,
    weather: SharedWeather,
    on_packet: OnPacket,
    local: SocketAddr,
}

impl fmt::Debug for SimulatedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

impl SimulatedSocket {
    /// Binds a socket of the host this is called on.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(
        port: u16,
        (weather, rng): (SharedWeather, ChaCha8Rng),
        on_packet: OnPacket,
    ) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind(("0.0.0.0", port)).await?;
        let local = socket.local_addr()?;
        Ok(Arc::new(Self {
            socket: Arc::new(socket),
            readable: Mutex::new(None),
            rng: Mutex::new(rng),
            weather,
            on_packet,
            local,
        }))
    }

    /// Draws what happens to the next packet, of so many bytes, and how long it is held back if it is.
    fn draw_fate(&self, size: usize) -> (Fate, Duration) {
        let weather = self.weather.get();
        if weather.packet_bytes_max.is_some_and(|most| size > most) {
            return (Fate::TooLarge, Duration::ZERO);
        }
        let rng = &mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if chance(rng, weather.loss_permille) {
            (Fate::Lost, Duration::ZERO)
        } else if chance(rng, weather.duplicate_permille) {
            (Fate::Doubled, duration_between(rng, Duration::ZERO, DELAY_MAX))
        } else if chance(rng, weather.reorder_permille) {
            (Fate::Delayed, duration_between(rng, Duration::from_millis(1), DELAY_MAX))
        } else if weather.corrupt_permille > 0 && chance(rng, weather.corrupt_permille) {
            (Fate::Corrupted, Duration::ZERO)
        } else {
            (Fate::Arrives, Duration::ZERO)
        }
    }

    /// The same packet with a few bits of it turned over.
    fn corrupted(&self, contents: &[u8]) -> Vec<u8> {
        let rng = &mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contents = contents.to_vec();
        for _ in 0..rng.random_range(1..=3) {
            let at = rng.random_range(0..contents.len().max(1));
            if let Some(byte) = contents.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        contents
    }

    fn send_now(&self, contents: &[u8], destination: SocketAddr) {
        // An unknown host or a full queue is a lost packet.
        let _ = self.socket.try_send_to(contents, destination);
    }

    fn send_later(&self, contents: &[u8], destination: SocketAddr, wait: Duration) {
        let socket = Arc::clone(&self.socket);
        let contents = contents.to_vec();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = socket.try_send_to(&contents, destination);
        });
    }
}

impl AsyncUdpSocket for SimulatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Transmit { destination, contents, .. } = *transmit;
        let (fate, wait) = self.draw_fate(contents.len());
        (self.on_packet)(destination, contents.len(), fate);
        match fate {
            Fate::Lost | Fate::TooLarge => {}
            Fate::Corrupted => self.send_now(&self.corrupted(contents), destination),
            Fate::Arrives => self.send_now(contents, destination),
            Fate::Delayed => self.send_later(contents, destination, wait),
            Fate::Doubled => {
                self.send_now(contents, destination);
                self.send_later(contents, destination, wait);
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let waiting = readable.get_or_insert_with(|| {
                let socket = Arc::clone(&self.socket);
                Box::pin(async move { socket.readable().await })
            });
            let result = ready!(waiting.as_mut().poll(cx));
            *readable = None;
            result?;
            let mut count = 0;
            for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
                let Ok((len, addr)) = self.socket.try_recv_from(buffer) else { break };
                *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated network takes everything at any time.
#[derive(Debug)]
pub(crate) struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
