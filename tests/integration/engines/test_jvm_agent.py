"""What the Java agent does for a JVM: renewed certificates, and TLS for the Python gateway alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.kbs_double import Authority, public_key
from tests.support.sessions import unattested_session

import casemate
from casemate.engines.spark_tls import PASSWORD_VARIABLES, SparkIdentity, write_identity
from casemate.workload.kbs import JobCertificate
from casemate.workload.session import AttestedSession

JAR = Path(casemate.__file__).parent / "jars" / "casemate-spark.jar"
SPARK_JARS = f"{Path(importlib.util.find_spec('pyspark').origin).parent}/jars/*"
SERVER = """
import java.io.*;
import java.nio.file.*;
import java.security.KeyStore;
import javax.net.ssl.*;

class Server {
  public static void main(String[] arguments) throws Exception {
    char[] password = System.getenv("_SPARK_SSL_RPC_KEY_STORE_PASSWORD").toCharArray();
    KeyStore keys = KeyStore.getInstance("PKCS12");
    try (InputStream in = Files.newInputStream(Path.of(arguments[0]))) {
      keys.load(in, password);
    }
    KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    factory.init(keys, password);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(factory.getKeyManagers(), null, null);
    SSLServerSocket server = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0);
    System.out.println(server.getLocalPort());
    while (true) {
      try (SSLSocket socket = (SSLSocket) server.accept()) {
        socket.startHandshake();
      } catch (IOException ignored) {
      }
    }
  }
}
"""
GATEWAY = """
import java.net.ServerSocket;
import javax.net.ServerSocketFactory;

class Gateway {
  public static void main(String[] arguments) throws Exception {
    py4j.GatewayServer server = new py4j.GatewayServer(new Object(), 0);
    server.start();
    ServerSocket plain = ServerSocketFactory.getDefault().createServerSocket(0);
    System.out.println(server.getListeningPort() + " " + plain.getClass().getSimpleName());
    Thread.currentThread().join();
  }
}
"""

pytestmark = pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK to run Java from source")


@pytest.fixture
def authority() -> Authority:
    return Authority("job")


@pytest.fixture
def session(tmp_path: Path, authority: Authority) -> Iterator[AttestedSession]:
    session = unattested_session(tmp_path, authority)
    yield session
    session.close()


def start(
    tmp_path: Path, source: str, identity: SparkIdentity, agent: str, *arguments: str, class_path: str = ""
) -> subprocess.Popen[str]:
    path = tmp_path / f"{source.split('class ')[1].split()[0]}.java"
    path.write_text(source)
    command = ["java", f"-javaagent:{JAR}={agent}", "-cp", f"{JAR}:{class_path or SPARK_JARS}", str(path), *arguments]
    environment = {**os.environ, **dict.fromkeys(PASSWORD_VARIABLES, identity.password)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def serial_of(port: int) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw, context.wrap_socket(raw) as sock:
        der = sock.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def renewed(session: AttestedSession, authority: Authority, identity: SparkIdentity) -> int:
    issued = authority.issue("worker", public_key(session.key_pair.public))
    session.certificate = JobCertificate(issued, authority.pem)
    write_identity(session, identity.password)
    return x509.load_pem_x509_certificate(issued.encode()).serial_number


def test_a_running_jvm_shows_the_renewed_certificate(
    tmp_path: Path, session: AttestedSession, authority: Authority
) -> None:
    identity = write_identity(session)
    process = start(tmp_path, SERVER, identity, str(identity.directory), str(identity.key_store))
    try:
        port = int(first_line(process))
        assert session.certificate is not None
        first = x509.load_pem_x509_certificate(session.certificate.certificate.encode()).serial_number
        assert serial_of(port) == first
        second = renewed(session, authority, identity)
        assert second != first
        assert serial_of(port) == second
        identity.key_store.write_bytes(b"half-written")
        assert serial_of(port) == second  # what is in hand stays good
        third = renewed(session, authority, identity)
        assert serial_of(port) == third
    finally:
        end(process)


def test_the_gateway_alone_gets_tls_and_asks_for_a_certificate_of_the_job(
    tmp_path: Path, session: AttestedSession, authority: Authority
) -> None:
    pyspark = pytest.importorskip("pyspark")
    identity = write_identity(session)
    jars = f"{Path(pyspark.__path__[0]) / 'jars'}/*"
    process = start(tmp_path, GATEWAY, identity, f"gateway:{identity.directory}", class_path=jars)
    try:
        line = first_line(process)
        port, others = line.split()
        assert others == "ServerSocket"
        ours = ssl.create_default_context(cafile=str(identity.directory / "authority.pem"))
        anonymous_ok = answers(int(port), ours)
        ours.load_cert_chain(identity.directory / "gateway.pem")
        assert answers(int(port), ours)
        assert not anonymous_ok
        stranger = ssl.create_default_context(cafile=str(identity.directory / "authority.pem"))
        (tmp_path / "other").mkdir()
        Authority("other").server_context(tmp_path / "other")
        stranger.load_cert_chain(next((tmp_path / "other").glob("server-*.pem")))
        assert not answers(int(port), stranger)
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as plain:
            plain.sendall(b"c\nt\ngetSystemInfo\ne\n")
            assert b"!y" not in plain.recv(100)
    finally:
        end(process)


def answers(port: int, context: ssl.SSLContext) -> bool:
    """Whether the gateway answers a command (any answer of its protocol begins with ``!``)."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
        ):
            sock.sendall(b"j\ni\nrj\njava.lang.String\ne\n")
            return sock.recv(100).startswith(b"!")
    except OSError:
        return False
