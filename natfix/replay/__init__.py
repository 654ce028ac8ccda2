"""natfix-replay: captures in; repaired captures, reasons and a diagnosis out."""
