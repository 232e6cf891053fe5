"""The one form in the middle: what is asked (`ask`), what an answer is made of (`events`), what it used (`usage`)."""
