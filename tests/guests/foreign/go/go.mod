module weir.example/filter

go 1.24
