-- Proves that ledger, records and holds of a range of products agree. Many rows: one per disagreement.
SELECT product_id, discrepancy FROM inventory_audit_v1(%s::text, %s::text)
