//! The UDP seam: sockets and names of the system. The simulator brings its own of both.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::TransportError;
use crate::tuning::Tuning;

/// A name being resolved.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<SocketAddr>> + Send + 'a>>;

/// Turns `host:port` into an address.
pub trait Resolve: Send + Sync + 'static {
    /// Resolves a name, each time anew: addresses may change while a node runs.
    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host(address).await?.next();
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        })
    }
}

/// A UDP socket of the system with large buffers; must be called inside a tokio runtime.
///
/// # Errors
/// When the address cannot be had; the error says what to do.
pub fn bind_udp(address: SocketAddr, tuning: &Tuning) -> Result<Arc<dyn AsyncUdpSocket>, TransportError> {
    let bound = || -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // The system caps these silently at its own limits, which is as good as it gets.
        socket.set_recv_buffer_size(tuning.socket_buffer_bytes)?;
        socket.set_send_buffer_size(tuning.socket_buffer_bytes)?;
        socket.bind(&address.into())?;
        TokioRuntime.wrap_udp_socket(socket.into())
    };
    bound().map_err(|source| TransportError::Bind { address, source })
}
