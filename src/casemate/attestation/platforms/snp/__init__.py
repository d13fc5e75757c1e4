"""AMD SEV-SNP: attestation reports (versions 2 to 5), VCEK and VLEK certificates, revocation lists; pure verification.

``verifier.SnpVerifier`` is the entry point. ``kds`` builds the URLs of AMD's key distribution service and reads its
replies; whoever does the input and output lives one layer out. ``simulator`` makes genuine-format evidence under a
certificate authority of its own."""
