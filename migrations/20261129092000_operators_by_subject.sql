-- Operators whom an OpenID provider vouches for: the pair of issuer and subject is the only lasting name that it gives.
ALTER TABLE operators
    ADD COLUMN oidc_issuer text,
    ADD COLUMN oidc_subject text,
    ADD CONSTRAINT operators_oidc CHECK (
        (oidc_issuer IS NULL) = (oidc_subject IS NULL) AND oidc_subject <> '');
CREATE UNIQUE INDEX operators_by_subject ON operators (oidc_issuer, oidc_subject);
