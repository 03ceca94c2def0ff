"""SQL text only: each dialect answers small questions in its database's own words and needs no Spark to be tested."""
