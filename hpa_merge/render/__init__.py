"""What is drawn and written of a report for people: the page, its pictures, the model card."""
