//! The UDP adapter: plain QUIC between two simulated hosts, through bad weather, and the same twice.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig};
use simulator::quic::socket::{OnPacket, SharedWeather, SimulatedRuntime, SimulatedSocket, Weather};
use simulator::random::{seed_bytes, stream};
use simulator::trace::Fate;

const PORT: u16 = 4433;
const MESSAGES: u32 = 200;

type Packets = Arc<Mutex<Vec<(u64, usize, Fate)>>>;

fn on_packet(packets: &Packets) -> OnPacket {
    let packets = Arc::clone(packets);
    Arc::new(move |_: SocketAddr, size, fate| {
        let at = u64::try_from(turmoil::elapsed().as_micros()).expect("a test does not last that long");
        packets.lock().expect("no thread panics").push((at, size, fate));
    })
}

fn endpoint_config(seed: u64, name: &str) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.rng_seed(Some(seed_bytes(seed, name)));
    config
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.initial_rtt(Duration::from_millis(5));
    Arc::new(transport)
}

fn configs() -> (ServerConfig, ClientConfig) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key can be made");
    let params = rcgen::CertificateParams::new(vec!["server".to_owned()]).expect("a legal name");
    let certificate = params.self_signed(&key).expect("a certificate can be signed");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows this version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("key and certificate belong together");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("the certificate is sound");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows this version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::with_crypto(Arc::new(
        QuicServerConfig::try_from(server).expect("the suites include the one that QUIC needs"),
    ));
    server.transport_config(transport());
    let mut client = ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(client).expect("the suites include the one that QUIC needs"),
    ));
    client.transport_config(transport());
    (server, client)
}

async fn serve(
    seed: u64,
    config: ServerConfig,
    weather: SharedWeather,
    on_packet: OnPacket,
) -> turmoil::Result {
    let socket = SimulatedSocket::bind(PORT, (weather, stream(seed, "server")), on_packet).await?;
    let endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config(seed, "server"),
        Some(config),
        socket,
        Arc::new(SimulatedRuntime),
    )?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        tokio::spawn(async move {
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let bytes = receive.read_to_end(1 << 20).await.expect("the client sends all of it");
                send.write_all(&bytes).await.expect("the client waits for it");
                send.finish().expect("it was not finished before");
            }
        });
    }
    Ok(())
}

/// Lets a client send messages to a server, and gives all packets of both.
fn echo(seed: u64, weather: Weather) -> Vec<(u64, usize, Fate)> {
    let packets = Packets::default();
    let weather = SharedWeather::new(weather);
    let mut builder = turmoil::Builder::new();
    let latency = Duration::from_millis(1);
    builder.min_message_latency(latency).max_message_latency(latency);
    builder.udp_capacity(4096).rng_seed(seed).simulation_duration(Duration::from_secs(120));
    let mut sim = builder.build();
    let (server, client) = configs();
    sim.host("server", {
        let (weather, on_packet) = (weather.clone(), on_packet(&packets));
        move || serve(seed, server.clone(), weather.clone(), Arc::clone(&on_packet))
    });
    let on_packet = on_packet(&packets);
    sim.client("client", async move {
        let socket = SimulatedSocket::bind(0, (weather, stream(seed, "client")), on_packet).await?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(seed, "client"),
            None,
            socket,
            Arc::new(SimulatedRuntime),
        )?;
        let server: IpAddr = turmoil::lookup("server");
        let connection = endpoint.connect_with(client, (server, PORT).into(), "server")?.await?;
        for message in 0..MESSAGES {
            let (mut send, mut receive) = connection.open_bi().await?;
            let bytes = vec![u8::try_from(message % 251).expect("below 251"); 100 + 37 * message as usize];
            send.write_all(&bytes).await?;
            send.finish()?;
            assert_eq!(receive.read_to_end(1 << 20).await?, bytes, "message {message} comes back");
        }
        Ok(())
    });
    sim.run().expect("every message comes back in time");
    drop(sim);
    Arc::try_unwrap(packets).expect("the simulation is over").into_inner().expect("no thread panics")
}

#[test]
fn quic_survives_the_weather_and_one_seed_is_one_run() {
    let weather = Weather {
        loss_permille: 50,
        duplicate_permille: 50,
        reorder_permille: 100,
        corrupt_permille: 50,
        packet_bytes_max: Some(1_300),
    };
    for seed in 0..3 {
        let packets = echo(seed, weather);
        for fate in [Fate::Arrives, Fate::Lost, Fate::Doubled, Fate::Delayed, Fate::Corrupted, Fate::TooLarge]
        {
            assert!(packets.iter().any(|(_, _, other)| *other == fate), "{fate:?} happened");
        }
        assert!(packets == echo(seed, weather), "seed {seed} gives the same packets at the same times");
    }
}

#[test]
fn fine_weather_loses_nothing() {
    let packets = echo(1, Weather::default());
    assert!(packets.iter().all(|(_, _, fate)| *fate == Fate::Arrives), "nothing was harmed");
    assert!(packets.len() > MESSAGES as usize, "something was sent");
}
