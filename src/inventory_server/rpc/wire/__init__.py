"""Between the proto and the domain: requests are parsed and checked here, answers are rendered."""
